"""A CSV of your own: `image,label` and, where known, `lesion_id`, `age`, `sex`, `site`, `part`."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pandas as pd

from skinlesion_cli.artifacts import tables
from skinlesion_cli.data.reading.images import IMAGE_SUFFIXES
from skinlesion_cli.data.sources.base import (
    NO_LESIONS,
    Collection,
    FileOrigin,
    Record,
    SourceOptions,
    ids_from_paths,
    known_age,
    known_class,
    known_word,
    refuse_duplicates,
)
from skinlesion_cli.errors import DataError, name_items
from skinlesion_cli.taxonomy import CLASS_NAMES

_KNOWN = ("image", "label", "lesion_id", "age", "sex", "site", "part")
# What tells a list that people filled in (`reviewed`) from a table of labels.
REVIEW_COLUMNS = frozenset({"review", "rank"})


def columns(path: Path) -> set[str]:
    """The columns that the file's first line names; none where it is no CSV file."""
    if not (path.is_file() and path.suffix.lower() == ".csv"):
        return set()
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return set(file.readline().strip().split(","))


def recognise(path: Path) -> bool:
    """Whether this is a CSV file, and no list that people filled in (which has columns of its own)."""
    found = columns(path)
    return bool(found) and not found & REVIEW_COLUMNS


def read(path: Path, options: SourceOptions) -> Collection:
    """Read the table. `image` is a path relative to the CSV's folder; its suffix may be left out.

    Raises
    ------
    DataError : columns missing or unknown; images missing, ambiguous, listed twice or outside the folder;
        unknown classes or parts. The offenders are named.
    """
    return from_table(tables.read_csv(path, path.name), path)


def from_table(table: pd.DataFrame, path: Path) -> Collection:
    """The same for a table that was read from `path`."""
    lacking = [column for column in ("image", "label") if column not in table.columns]
    strange = [column for column in table.columns if column not in _KNOWN]
    if lacking or strange:
        problem = f"lacks {', '.join(lacking)}" if lacking else f"has unknown columns: {name_items(strange)}"
        raise DataError(f"{path.name} {problem}", "Known columns: " + ", ".join(_KNOWN))
    rows = table.to_dict("records")
    refuse_duplicates([row["image"] for row in rows], path.name)
    _refuse(
        path, "a label that is not known", [_named(r, "label") for r in rows if not known_class(r["label"])]
    )
    parts = ("", "train", "val", "test")
    _refuse(path, "an unknown part", [_named(r, "part") for r in rows if r.get("part", "") not in parts])
    files = {row["image"]: _locate(path.parent, row["image"]) for row in rows}
    _refuse(path, "no file beside the table", [image for image, file in files.items() if file is None])
    found = {image: file for image, file in files.items() if file is not None}
    refuse_duplicates(list(found.values()), path.name)
    ids = ids_from_paths(list(found.values()))
    records = []
    for row in rows:
        file = found[row["image"]]
        records.append(
            Record(
                id=ids[file],
                origin=FileOrigin(path.parent / file),
                file=file,
                label=known_class(row["label"]) or "",
                lesion_id=row.get("lesion_id", "") or ids[file],
                age_years=known_age(row.get("age", ""), f"{path.name}, {row['image']}"),
                sex=known_word(row.get("sex", "")),
                site=known_word(row.get("site", "")),
                part=row.get("part", ""),
            )
        )
    without = sum(not row.get("lesion_id", "") for row in rows)
    notes = [NO_LESIONS] if without == len(rows) else []
    if 0 < without < len(rows):
        notes.append(f"{without:,} images without a lesion_id count as lesions of their own")
    return Collection("csv", records, "unknown", "unknown", tuple(notes))


def _named(row: dict, column: str) -> str:
    return f"{row['image']} ({row[column]!r})"


def _refuse(path: Path, problem: str, offenders: list[str]) -> None:
    if offenders:
        raise DataError(
            f"{path.name}: these images have {problem}: {name_items(offenders)}",
            "Known labels: "
            + ", ".join(CLASS_NAMES)
            + "; image files are looked for in the CSV's own folder.",
        )


def _locate(folder: Path, image: str) -> str | None:
    """The image's path relative to `folder`; None where there is no such file, or more than one, inside it."""
    relative = PurePosixPath(image.replace("\\", "/"))
    if not image or relative.is_absolute() or ".." in relative.parts:
        return None
    # Not Path.is_file: that raises for a name too long for the file system.
    if os.path.isfile(folder / relative):
        return str(relative)
    candidates = sorted(
        candidate.name
        for candidate in (folder / relative.parent).glob("*")
        if candidate.name.startswith(f"{relative.name}.") and candidate.stem == relative.name
        if candidate.suffix.lower() in IMAGE_SUFFIXES
    )
    return str(relative.parent / candidates[0]) if len(candidates) == 1 else None
