"""A folder with one sub-folder per class: `MEL/a.jpg`,
or `train/melanoma/a.jpg` beside `val/...` and `test/...`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from skinlesion_cli.data.reading.listing import list_images
from skinlesion_cli.data.sources.base import (
    PART_NAMES,
    Collection,
    SourceOptions,
    dropped_notes,
    from_paths,
    unused_map_notes,
)
from skinlesion_cli.errors import DataError
from skinlesion_cli.taxonomy.class_list import ClassList


def _hint(classes: ClassList) -> str:
    return (
        f"Expected sub-folders named {', '.join(classes.codes)} (or by a synonym; --map NAME=CLASS for other "
        "names, --classes for another class list), at the top or within train, val and test."
    )


def recognise(path: Path, classes: ClassList) -> bool:
    """Whether a sub-folder is named after a class, at the top or within a part."""
    if not path.is_dir():
        return False
    top = [child for child in path.iterdir() if child.is_dir()]
    inner = [
        child for part in top if part.name.lower() in PART_NAMES for child in part.iterdir() if child.is_dir()
    ]
    return any(classes.class_named(child.name) for child in top + inner)


def read(folder: Path, options: SourceOptions) -> Collection:
    """Read class sub-folders.

    Raises
    ------
    DataError : no images, or images in a folder that is no class; they are named.
    """
    listing = list_images(folder)
    if not listing.files:
        raise DataError(f"{folder} holds no images", _hint(options.classes))
    labels: dict[str, str | None] = {}
    parts: dict[str, str] = {}
    dropped: list[str] = []
    names: set[str] = set()
    for file in listing.files:
        above = file.split("/")[:-1]
        parts[file] = PART_NAMES.get(above[0].lower(), "") if above else ""
        below = above[1:] if parts[file] else above
        labels[file] = options.class_of(below[0]) if below else None
        names.update(below[:1])
        if labels[file] == "":
            dropped.append(below[0])
    collection = from_paths(
        "folders",
        listing,
        labels,
        parts,
        without_class="are not in the folder of a class",
        hint=_hint(options.classes),
    )
    notes = [*dropped_notes(dropped, options), *unused_map_notes(names, options), *collection.notes]
    return replace(collection, notes=tuple(notes))
