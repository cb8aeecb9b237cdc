"""Which kind of source a table is, by its name and headers alone; each table is of one kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from skinlesion_cli.artifacts import user_tables
from skinlesion_cli.taxonomy import plain_name
from skinlesion_cli.taxonomy.class_list import ClassList

CSV, REVIEWED, ARCHIVE = "csv", "reviewed", "isic-archive"
# What distinguishes a list that people filled in from a table of labels.
_REVIEW_COLUMNS = frozenset({"review", "rank"})
_ARCHIVE_IDS = frozenset({"isic id", "image name"})
_ARCHIVE_COLUMNS = frozenset(
    {
        "diagnosis 1",
        "iddx 1",
        "iddx full",
        "benign malignant",
        "image type",
        "tbp tile type",
        "copyright license",
    }
)
# Parts of other layouts, which have readers of their own.
_OTHER_LAYOUTS = ("isic2018 task3", "isic 2019", "ham10000 metadata", "hmnist")


def kind_of(headers: Sequence[str], classes: ClassList) -> str | None:
    """The kind of a table with these headers; None where it says of no image what it shows."""
    plain = {plain_name(header) for header in headers}
    if {"image", "label"} <= plain and plain & _REVIEW_COLUMNS:
        return REVIEWED
    if plain & _ARCHIVE_IDS and plain & _ARCHIVE_COLUMNS:
        return ARCHIVE
    one_hot = {classes.class_named(header) for header in headers}.issuperset(classes.codes)
    labelled = one_hot or user_tables.means(headers, "label")
    return CSV if labelled and user_tables.means(headers, "image") else None


def tables_in(folder: Path, kind: str, classes: ClassList) -> list[Path]:
    """Tables of this kind directly in a folder, sorted by name;
    hidden files and those of other layouts left out.
    """
    return [
        path
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".")
        if not plain_name(path.stem).startswith(_OTHER_LAYOUTS)
        if kind_of(user_tables.headers(path), classes) == kind
    ]


def is_source(path: Path, kind: str, classes: ClassList) -> bool:
    """Whether this is a table of the kind, or a folder that holds one."""
    if path.is_dir():
        return bool(tables_in(path, kind, classes))
    return kind_of(user_tables.headers(path), classes) == kind
