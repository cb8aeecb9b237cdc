"""A folder with one sub-folder a class: `MEL/a.jpg`, or `train/MEL/a.jpg` beside `val/...` and `test/...`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from skinlesion_cli.data.listing import list_images
from skinlesion_cli.data.sources.base import (
    NO_LESIONS,
    Collection,
    FileOrigin,
    Record,
    SourceOptions,
    ids_from_paths,
    known_class,
)
from skinlesion_cli.errors import DataError, name_items
from skinlesion_cli.taxonomy import CLASS_NAMES

_PARTS: Mapping[str, str] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
_HINT = "Expected sub-folders named " + ", ".join(CLASS_NAMES) + ", at the top or within train, val and test."


def recognise(path: Path) -> bool:
    """Whether a sub-folder is named after a class, at the top or within a part."""
    if not path.is_dir():
        return False
    top = [child for child in path.iterdir() if child.is_dir()]
    inner = [
        child for part in top if part.name.lower() in _PARTS for child in part.iterdir() if child.is_dir()
    ]
    return any(known_class(child.name) for child in top + inner)


def read(folder: Path, options: SourceOptions) -> Collection:
    """Read class sub-folders.

    Raises
    ------
    DataError : no images, or images in a folder that is no class; they are named.
    """
    listing = list_images(folder)
    if not listing.files:
        raise DataError(f"{folder} holds no images", _HINT)
    ids = ids_from_paths(listing.files)
    records: list[Record] = []
    astray: list[str] = []
    for file in listing.files:
        above = file.split("/")[:-1]
        part = _PARTS.get(above[0].lower(), "") if above else ""
        label = known_class((above[1:] if part else above)[0]) if above[1 if part else 0 :] else None
        if label is None:
            astray.append(file)
            continue
        origin = FileOrigin(folder / file)
        records.append(
            Record(id=ids[file], origin=origin, file=file, label=label, lesion_id=ids[file], part=part)
        )
    if astray:
        raise DataError(f"these images lie in no folder of a class: {name_items(astray)}", _HINT)
    notes = [NO_LESIONS]
    if listing.links:
        notes.append(f"links were not followed: {name_items(listing.links)}")
    return Collection("folders", records, "unknown", "unknown", tuple(notes))
