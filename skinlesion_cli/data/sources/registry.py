"""Every kind of source by name. To add one: a file with `recognise` and `read` here beside, and a line below."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from skinlesion_cli.data.sources import (
    class_folders,
    isic2018,
    isic2019,
    kaggle_ham10000,
    labels_csv,
    reviewed,
)
from skinlesion_cli.data.sources.base import Collection, SourceOptions
from skinlesion_cli.errors import UsageError

SOURCES: Mapping[str, ModuleType] = {
    "isic2018": isic2018,
    "ham10000": kaggle_ham10000,
    "isic2019": isic2019,
    "folders": class_folders,
    "csv": labels_csv,
    "reviewed": reviewed,
}


def require_there(path: Path) -> None:
    """Refuse a source that does not exist (UsageError)."""
    if not path.exists():
        raise UsageError(f"there is nothing at {path}", "Check the path that --from names.")


def read_source(path: Path, name: str, options: SourceOptions) -> Collection:
    """Read a source by name, or by what it looks like where the name is `auto`.

    Raises
    ------
    UsageError : there is nothing at `path`, the name is unknown, or it looks like no source or like several.
    DataError : what it holds cannot be used.
    """
    require_there(path)
    if name == "auto":
        fitting = [known for known, source in SOURCES.items() if source.recognise(path)]
        if len(fitting) != 1:
            looks = f"like {' and '.join(fitting)}" if fitting else "like no source that is known"
            raise UsageError(f"{path} looks {looks}", "Say what it is with --format: " + ", ".join(SOURCES))
        name = fitting[0]
    if name not in SOURCES:
        raise UsageError(f"no kind of source named {name!r}", "Known: auto, " + ", ".join(SOURCES))
    collection: Collection = SOURCES[name].read(path, options)
    return collection
