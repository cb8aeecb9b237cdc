"""A table of your own: images and labels and, where known, lesion, patient, age, sex, site, part and source.

Headers, class names, separators and encodings
as people write them (`artifacts/user_tables.py`, `taxonomy.py`).
"""

from __future__ import annotations

from collections.abc import Collection as Container
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skinlesion_cli.artifacts import user_tables
from skinlesion_cli.artifacts.user_tables import COLUMN_NAMES, UserTable
from skinlesion_cli.data.sources import table_kinds
from skinlesion_cli.data.sources.base import (
    NO_LESIONS,
    PART_NAMES,
    Collection,
    FileOrigin,
    Record,
    SourceOptions,
    dropped_notes,
    ids_from_paths,
    known_age,
    known_id,
    known_word,
    label_hint,
    refuse_duplicates,
    unused_map_notes,
)
from skinlesion_cli.data.sources.image_finder import ImageFinder
from skinlesion_cli.errors import DataError, UsageError, name_items
from skinlesion_cli.taxonomy import plain_name
from skinlesion_cli.taxonomy.class_list import ClassList


def recognise(path: Path, classes: ClassList) -> bool:
    """Whether this is a table of images and labels, or a folder that holds one.

    A lone file that is a table of no kind counts too: reading it says what it lacks.
    """
    if path.is_dir():
        return table_kinds.is_source(path, table_kinds.CSV, classes)
    is_table = path.is_file() and path.suffix.lower() in user_tables.TABLE_SUFFIXES
    return is_table and table_kinds.kind_of(user_tables.headers(path), classes) in (table_kinds.CSV, None)


def read(path: Path, options: SourceOptions) -> Collection:
    """Read the table; images are looked for beside and below it, or in `options.images`.

    Raises
    ------
    DataError : columns missing; images missing, ambiguous, listed twice or outside the folder; unknown
        classes or parts. The offenders are named.
    UsageError : a folder holds several such tables.
    """
    path = the_table(path, table_kinds.CSV, options.classes)
    return from_table(user_tables.read(path, path.name), path, options)


def the_table(path: Path, kind: str, classes: ClassList) -> Path:
    """The table itself, or the only one of its kind in a folder.

    Raises
    ------
    DataError : there is none.
    UsageError : there is more than one.
    """
    if not path.is_dir():
        return path
    tables = table_kinds.tables_in(path, kind, classes)
    if not tables:
        raise DataError(f"{path} holds no table of images and labels", "Name the table with --from FILE.")
    if len(tables) > 1:
        which = name_items(table.name for table in tables)
        raise UsageError(
            f"{path} holds several tables of images and labels: {which}", "Name one with --from FILE."
        )
    return tables[0]


@dataclass(frozen=True)
class _Columns:
    """Column -> cells (object, all text), and the headers that were not used."""

    cells: dict[str, list[str]]
    unused: list[str]

    def of(self, column: str, row: int) -> str:
        return self.cells[column][row] if column in self.cells else ""


def from_table(
    table: UserTable, path: Path, options: SourceOptions, own_columns: Container[str] = ()
) -> Collection:
    """The images of a table that was read from `path`; `own_columns` are not reported as unused."""
    columns = _columns(table, options)
    images, labels = columns.cells["image"], columns.cells["label"]
    rows = range(len(images))
    if not images:
        raise DataError(f"{table.name} has no rows")
    refuse_duplicates(images, table.name)
    classes = [options.class_of(label) for label in labels]
    unknown = [f"{images[row]} ({labels[row]!r})" for row in rows if classes[row] is None]
    if unknown:
        raise DataError(
            f"{table.name}: these images have a label that is not known: {name_items(unknown)}",
            label_hint(options.classes) + " Tables of the ISIC archive are read with --format isic-archive.",
        )
    parts = [PART_NAMES.get(columns.of("part", row).lower()) for row in rows]
    unknown_parts = [f"{images[row]} ({columns.of('part', row)!r})" for row in rows if parts[row] is None]
    if unknown_parts:
        raise DataError(
            f"{table.name}: these images have an unknown part: {name_items(unknown_parts)}",
            "Known: train, val, test.",
        )
    root = options.images or path.parent
    files, file_notes = _files(images, root, table.name, options)
    ids = ids_from_paths([files[row] for row in rows if row in files])
    records = []
    for row in rows:
        label = classes[row]
        if not label or row not in files:
            continue
        file = files[row]
        records.append(
            Record(
                id=ids[file],
                origin=FileOrigin(root / file),
                file=file,
                label=label,
                lesion_id=known_id(columns.of("lesion_id", row)) or ids[file],
                age_years=known_age(columns.of("age", row), f"{table.name}, {images[row]}"),
                sex=known_word(columns.of("sex", row)),
                site=known_word(columns.of("site", row)),
                part=parts[row] or "",
                patient_id=known_id(columns.of("patient_id", row)),
                source=columns.of("source", row),
            )
        )
    if not records:
        raise DataError(f"{table.name} names no image that could be used")
    notes = dropped_notes([labels[row] for row in rows if not classes[row]], options)
    notes += unused_map_notes(labels, options)
    notes += file_notes
    notes += _about(table, columns, own_columns)
    notes += _lesion_notes(records)
    return Collection(table_kinds.CSV, records, "unknown", "unknown", tuple(notes))


def _files(
    images: list[str], root: Path, name: str, options: SourceOptions
) -> tuple[dict[int, str], list[str]]:
    """Row -> file relative to `root`, and notes on images that have none or are elsewhere."""
    finder = ImageFinder(root)
    found = {row: finder.find(image) for row, image in enumerate(images)}
    finder.refuse_ambiguous()
    files = {row: file for row, file in found.items() if file is not None}
    missing = [image for row, image in enumerate(images) if row not in files]
    if missing and not (options.allow_missing and files):
        where = "beside the table" if options.images is None else f"in {options.images.name}"
        raise DataError(
            f"{name}: these images have no file {where}: {name_items(missing)}",
            "Name the folder of the images with --images FOLDER; --allow-missing skips rows without an "
            "image.",
        )
    refuse_duplicates(list(files.values()), name)
    notes = []
    if missing:
        notes.append(
            f"{len(missing):,} of {len(images):,} rows have no image and were skipped: {name_items(missing)}"
        )
    if finder.relocated:
        notes.append(
            f"{len(finder.relocated):,} images were found without the folders before their name, "
            f"which are not there: {name_items(finder.relocated)}"
        )
    return files, notes


def _columns(table: UserTable, options: SourceOptions) -> _Columns:
    headers = {column: table.headers_of(column) for column in COLUMN_NAMES}
    label_header = _label_header(table, headers["label"], options)
    class_headers = {} if label_header else table.class_headers(options.classes)
    lacking = [column for column in ("image", "label") if not headers[column]]
    if class_headers and "label" in lacking:
        lacking.remove("label")
    if lacking:
        shown = ", ".join(map(str, table.cells.columns[:20]))
        raise DataError(
            f"{table.name} lacks {' and '.join(lacking)}; its columns are {shown}",
            "Name them `image` and `label`, or give one column of 0 and 1 for each class.",
        )
    chosen = {column: names[0] for column, names in headers.items() if names and column != "label"}
    cells = {column: [str(cell) for cell in table.cells[header]] for column, header in chosen.items()}
    if label_header:
        chosen["label"] = label_header
        cells["label"] = [str(cell) for cell in table.cells[label_header]]
    else:
        cells["label"] = _one_hot(table, class_headers, cells["image"])
    used = {*chosen.values(), *class_headers.values()}
    return _Columns(cells, [header for header in table.cells.columns if header not in used])


def _label_header(table: UserTable, candidates: list[str], options: SourceOptions) -> str | None:
    """The header of the labels: of several that may be, the one whose cells are all known classes.

    Raises
    ------
    DataError : several are, and they contradict each other.
    """
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    classes = {header: [options.class_of(str(cell)) for cell in table.cells[header]] for header in candidates}
    understood = [header for header in candidates if None not in classes[header]]
    for other in understood[1:]:
        differing = [
            str(row + 2)
            for row, (one, two) in enumerate(zip(classes[understood[0]], classes[other], strict=True))
            if one != two
        ]
        if differing:
            raise DataError(
                f"{table.name}: the columns {understood[0]!r} and {other!r} contradict each other in lines "
                f"{name_items(differing)}",
                "Remove the column that is not meant.",
            )
    return understood[0] if understood else candidates[0]


def _one_hot(table: UserTable, class_headers: dict[str, str], images: list[str]) -> list[str]:
    values = np.column_stack(
        [user_tables.numbers(table.cells[class_headers[name]], table.separator) for name in class_headers]
    )
    good = ((values == 0.0) | (values == 1.0)).all(axis=1) & (values.sum(axis=1) == 1.0)
    if not good.all():
        offenders = [image for image, fine in zip(images, good, strict=True) if not fine]
        raise DataError(f"{table.name}: these images do not have exactly one class: {name_items(offenders)}")
    names = list(class_headers)
    return [names[index] for index in values.argmax(axis=1)]


def _about(table: UserTable, columns: _Columns, own_columns: Container[str]) -> list[str]:
    notes = []
    unused = [header for header in columns.unused if plain_name(header) not in own_columns]
    if unused:
        notes.append(f"columns of {table.name} that are not used: {name_items(unused, shown=20)}")
    if table.encoding == "cp1252":
        notes.append(f"{table.name} is not UTF-8 and was read as Windows-1252")
    return notes


def _lesion_notes(records: list[Record]) -> list[str]:
    without = sum(record.lesion_id == record.id for record in records)
    if without == len(records) and not any(record.patient_id for record in records):
        return [NO_LESIONS]
    if 0 < without < len(records):
        return [f"{without:,} images without a lesion_id count as lesions of their own"]
    return []
