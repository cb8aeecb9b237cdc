"""The class lists that come with the package: one YAML file each in `lists/`, read when first asked for."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from skinlesion_cli.errors import UsageError, unknown_name
from skinlesion_cli.taxonomy.class_list import ClassList
from skinlesion_cli.taxonomy.reading import parse_class_list, read_class_list

DEFAULT: Final = "isic2018"
SHIPPED: Final = (DEFAULT, "isic2019", "melanoma", "malignancy", "diagnosis_1")


def shipped_text(name: str) -> str:
    """The YAML of a shipped list, to start one's own from.

    Raises
    ------
    UsageError : none is called so.
    """
    if name not in SHIPPED:
        raise UsageError(unknown_name(name, SHIPPED), "Class lists: " + ", ".join(SHIPPED))
    return (files("skinlesion_cli.taxonomy") / "lists" / f"{name}.yaml").read_text(encoding="utf-8")


@cache
def shipped(name: str) -> ClassList:
    """A shipped list by its name.

    Raises
    ------
    UsageError : none is called so.
    """
    return parse_class_list(shipped_text(name), name, name)


def class_list(name: str) -> ClassList:
    """A shipped class list by its name, or that of a YAML file by its path.

    Raises
    ------
    UsageError : it is neither, or the file holds no class list.
    """
    if name in SHIPPED or not Path(name).suffix:
        return shipped(name)
    return read_class_list(Path(name))
