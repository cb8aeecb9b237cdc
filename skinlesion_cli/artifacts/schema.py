"""Types that the schemas of artifact bodies share: names, counts, shares, and values in JSON types."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, JsonValue, ValidationInfo
from typing_extensions import TypeAliasType

from skinlesion_cli.taxonomy.class_list import ClassList

# Enough for every real dataset and model, and few enough to be held in memory.
MOST_IMAGES = 20_000_000
MOST_MEMBERS = 200
MOST_VIEWS = 100
MOST_CLASSES = 50
_MOST_CHARACTERS = 100_000
# Under this key the validation context holds the class list that an artifact is about.
CLASSES = "classes"


def classes_of(info: ValidationInfo) -> ClassList | None:
    """The class list of the artifact that is read; None for a body that is made in memory."""
    return info.context.get(CLASSES) if info.context else None


def _known_class(name: str, info: ValidationInfo) -> str:
    classes = classes_of(info)
    if classes is not None and name not in classes.index:
        raise ValueError(f"known classes are {', '.join(classes.codes)}")
    return name


def _file_name(name: str) -> str:
    # Names of networks become names of folders.
    if name in (".", "..") or re.search(r"[/\\:\x00-\x1f\x7f]", name):
        raise ValueError("this is not a plain name of a file or folder")
    return name


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("the names must be different")
    return names


Text = Annotated[str, Field(max_length=_MOST_CHARACTERS)]
ClassName = Annotated[str, AfterValidator(_known_class)]
FileName = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_file_name)]
ViewName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
# Published test-time augmentation averages some views twice.
ViewNames = Annotated[tuple[ViewName, ...], Field(min_length=1, max_length=MOST_VIEWS)]
ClassNames = Annotated[tuple[ClassName, ...], Field(max_length=MOST_CLASSES), AfterValidator(_different)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=MOST_IMAGES)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
JsonObject = dict[str, JsonValue]
# Measured numbers by name, in any depth; None where they are undefined.
Figures = TypeAliasType(
    "Figures",
    "dict[Text, Figures] | list[Figures] | bool | Annotated[float, Field(ge=-1e12, le=1e12)] | None",
)
