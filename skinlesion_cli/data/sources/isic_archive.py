"""Images of the ISIC archive with its tables: isic-cli's `metadata.csv`, ISIC 2020's `train.csv`, ISIC 2024.

Several tables of one download (ISIC 2024 has the diagnosis in one and the patient in another)
are joined by id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from skinlesion_cli.artifacts import user_tables
from skinlesion_cli.data.sources import table_kinds
from skinlesion_cli.data.sources.archive_diagnoses import class_of
from skinlesion_cli.data.sources.base import (
    Collection,
    FileOrigin,
    Record,
    SourceOptions,
    known_age,
    known_id,
    known_word,
    refuse_duplicates,
    unused_map_notes,
)
from skinlesion_cli.data.sources.image_finder import ImageFinder
from skinlesion_cli.errors import DataError, name_items
from skinlesion_cli.taxonomy import plain_name
from skinlesion_cli.taxonomy.class_list import ClassList

_IDS = ("isic id", "image name")
_LEVELS = tuple(f"{name} {level}" for name in ("diagnosis", "iddx") for level in range(1, 6))
_FULL = ("diagnosis full", "iddx full")
_DIAGNOSIS = (*_LEVELS, *_FULL, "diagnosis")
_USED = {
    *_IDS,
    *_DIAGNOSIS,
    "image type",
    "lesion id",
    "patient id",
    "age approx",
    "sex",
    "anatom site general",
    "anatom site general challenge",
    "copyright license",
    "attribution",
}
# More folders than this are no download of the archive.
_MAX_FOLDERS = 20
_ATTRIBUTIONS_SHOWN = 50

Row = Mapping[str, str]


def recognise(path: Path, classes: ClassList) -> bool:
    """Whether this is a table of the archive, or a folder that holds one."""
    return bool(_tables(path, classes))


def read(path: Path, options: SourceOptions) -> Collection:
    """Read the images whose diagnosis has a class; all others are counted by diagnosis.

    Raises
    ------
    DataError : no table with diagnoses; tables contradict each other; images without a file; nothing is left.
    """
    rows = _rows(path, options.classes)
    folder = options.images or (path if path.is_dir() else path.parent)
    notes: list[str] = []
    rows = _of_type(rows, options, notes)
    labels: dict[str, str] = {}
    dropped: Counter[str] = Counter()
    for identity, row in rows.items():
        label, diagnosis = class_of(_levels(row), options)
        if label:
            labels[identity] = label
        else:
            dropped[diagnosis] += 1
    if dropped:
        counted = ", ".join(f"{count:,} {diagnosis}" for diagnosis, count in dropped.most_common())
        notes.append(f"{dropped.total():,} images without a class were dropped, by diagnosis: {counted}")
    notes += unused_map_notes((level for row in rows.values() for level in _levels(row)), options)
    files, missing = _files(labels, folder, options)
    if missing:
        notes.append(
            f"{len(missing):,} of {len(labels):,} images have no file and were skipped: {name_items(missing)}"
        )
    records = [
        _record(identity, rows[identity], labels[identity], folder, file) for identity, file in files.items()
    ]
    if not records:
        raise DataError(
            f"{path} has no image with a class: " + "; ".join(notes),
            "Photographs of other kinds are read with --image-types all.",
        )
    alone = sum(record.lesion_id == record.id for record in records)
    unknown_patients = sum(not record.patient_id for record in records)
    if alone:
        notes.append(f"{alone:,} images without a lesion id count as lesions of their own")
    if unknown_patients:
        notes.append(f"{unknown_patients:,} images have no patient id: only their lesions are kept together")
    used = [rows[record.id] for record in records]
    return Collection("isic-archive", records, _licence(used), _attribution(used), tuple(notes))


def _tables(path: Path, classes: ClassList) -> list[Path]:
    """The archive's tables in a folder and the folders in it, or the one that was named."""
    if not path.is_dir():
        return [path] if table_kinds.is_source(path, table_kinds.ARCHIVE, classes) else []
    inner = [child for child in sorted(path.iterdir()) if child.is_dir() and not child.name.startswith(".")]
    folders = [path, *inner[:_MAX_FOLDERS]]
    return [
        table for folder in folders for table in table_kinds.tables_in(folder, table_kinds.ARCHIVE, classes)
    ]


def _rows(path: Path, classes: ClassList) -> dict[str, dict[str, str]]:
    """Id -> column (by plain name) -> cell, of all ids that have a diagnosis column in some table."""
    rows: dict[str, dict[str, str]] = {}
    diagnosed: set[str] = set()
    contradicting: set[str] = set()
    for file in _tables(path, classes) or [path]:
        table = user_tables.read(file, file.name, keep=lambda header: plain_name(header) in _USED)
        columns = {plain_name(header): table.cells[header].tolist() for header in table.cells.columns}
        ids = next((columns[name] for name in _IDS if name in columns), None)
        if ids is None:
            raise DataError(f"{file.name} lacks a column isic_id (or image_name)")
        refuse_duplicates(ids, file.name)
        if columns.keys() & set(_DIAGNOSIS):
            diagnosed |= set(ids)
        for column, cells in columns.items():
            for identity, cell in zip(ids, cells, strict=True):
                there = rows.setdefault(identity, {}).setdefault(column, cell)
                if not there:
                    rows[identity][column] = cell
                elif cell and cell != there and column in _DIAGNOSIS:
                    contradicting.add(identity)
    if contradicting:
        raise DataError(
            f"tables in {path} give these images two diagnoses: {name_items(sorted(contradicting))}"
        )
    if not diagnosed:
        raise DataError(
            f"{path} holds no table with diagnoses of the ISIC archive",
            "Expected isic-cli's metadata.csv, or train.csv of ISIC 2020, beside the images.",
        )
    return {identity: rows[identity] for identity in sorted(diagnosed)}


def _levels(row: Row) -> list[str]:
    """The diagnosis from general to specific; that of one word first, which the levels have replaced."""
    full = next((row[name] for name in _FULL if row.get(name)), "")
    levels = [row[name] for name in _LEVELS if row.get(name)] or [
        part for part in full.split(":") if part.strip()
    ]
    return levels or [row.get("diagnosis", "")]


def _of_type(
    rows: dict[str, dict[str, str]], options: SourceOptions, notes: list[str]
) -> dict[str, dict[str, str]]:
    """The dermoscopic images, or all; tables that do not say (ISIC 2020) hold dermoscopic images only."""
    if options.image_types == "all" or not any(row.get("image type") for row in rows.values()):
        return rows
    kept = {
        identity: row
        for identity, row in rows.items()
        if plain_name(row.get("image type", "")) == "dermoscopic"
    }
    others = Counter(
        row.get("image type") or "unknown kind" for identity, row in rows.items() if identity not in kept
    )
    if others:
        counted = ", ".join(f"{count:,} {kind}" for kind, count in others.most_common())
        notes.append(
            f"{others.total():,} images that are not dermoscopic were skipped ({counted}); "
            "--image-types all keeps them"
        )
    return kept


def _files(
    labels: Mapping[str, str], folder: Path, options: SourceOptions
) -> tuple[dict[str, str], list[str]]:
    finder = ImageFinder(folder)
    found = {identity: finder.find(identity) for identity in labels}
    finder.refuse_ambiguous()
    files = {identity: file for identity, file in found.items() if file is not None}
    missing = [identity for identity in labels if identity not in files]
    if missing and not (options.allow_missing and files):
        raise DataError(
            f"these images have no file in {folder}: {name_items(missing)}",
            "Name the folder of the images with --images FOLDER; --allow-missing skips rows without an "
            "image.",
        )
    return files, missing


def _record(identity: str, row: Row, label: str, folder: Path, file: str) -> Record:
    site = row.get("anatom site general") or row.get("anatom site general challenge", "")
    return Record(
        id=identity,
        origin=FileOrigin(folder / file),
        file=f"{identity}{Path(file).suffix.lower()}",
        label=label,
        lesion_id=known_id(row.get("lesion id", "")) or identity,
        age_years=known_age(row.get("age approx", ""), identity),
        sex=known_word(row.get("sex", "")),
        site=known_word(site),
        patient_id=known_id(row.get("patient id", "")),
    )


def _licence(rows: Sequence[Row]) -> str:
    counts = Counter(row["copyright license"] for row in rows if row.get("copyright license"))
    return ", ".join(f"{licence} ({count:,})" for licence, count in counts.most_common()) or "unknown"


def _attribution(rows: Sequence[Row]) -> str:
    counts = Counter(row["attribution"] for row in rows if row.get("attribution"))
    lines = [f"{name} ({count:,} images)" for name, count in counts.most_common(_ATTRIBUTIONS_SHOWN)]
    if len(counts) > _ATTRIBUTIONS_SHOWN:
        lines.append(
            f"and {len(counts) - _ATTRIBUTIONS_SHOWN:,} others, named in the tables of the ISIC archive"
        )
    return "\n".join(["Images of the ISIC archive, https://www.isic-archive.com", *lines])
