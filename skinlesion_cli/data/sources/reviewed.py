"""A list that people filled in: `reviewed.csv` of the page to review a batch,
or the list of `skinlesion select`.

It has `image` and `label`, and columns of its own that say how the image came to be on it. Rows without a
label say nothing about the class and are left out.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

from skinlesion_cli.artifacts import user_tables
from skinlesion_cli.artifacts.prediction_columns import unescape_formula
from skinlesion_cli.data.sources import labels_csv, table_kinds
from skinlesion_cli.data.sources.base import Collection, SourceOptions
from skinlesion_cli.errors import DataError
from skinlesion_cli.taxonomy import plain_name
from skinlesion_cli.taxonomy.class_list import ClassList

# By `taxonomy.plain_name`.
OWN_COLUMNS = frozenset(
    [
        "review",
        "decision",
        "malignant probability",
        "note",
        "rank",
        "margin",
        "entropy",
        "disagreement",
        "strategy",
        "model sha256",
    ]
)


def recognise(path: Path, classes: ClassList) -> bool:
    """Whether this is such a list: a table with `image`, `label`, and `review` or `rank`;
    or a folder that holds one.
    """
    return table_kinds.is_source(path, table_kinds.REVIEWED, classes)


def read(path: Path, options: SourceOptions) -> Collection:
    """Read the rows that have a label, as `labels_csv` does.

    Raises
    ------
    DataError : as `labels_csv.read`; no row has a label.
    """
    path = labels_csv.the_table(path, table_kinds.REVIEWED, options.classes)
    table = user_tables.read(path, path.name)
    headers = {plain_name(header): header for header in table.cells.columns}
    if not {"image", "label"} <= set(headers):
        raise DataError(f"{path.name} lacks the columns image and label")
    labelled = table.cells[table.cells[headers["label"]] != ""].reset_index(drop=True)
    if labelled.empty:
        raise DataError(f"{path.name}: no row has a label")
    images = [_plain(image) for image in labelled[headers["image"]]]
    labelled = labelled.assign(**{headers["image"]: images})
    collection = labels_csv.from_table(replace(table, cells=labelled), path, options, OWN_COLUMNS)
    notes, left_out = collection.notes, len(table.cells) - len(labelled)
    if left_out:
        notes += (f"{left_out:,} of {len(table.cells):,} rows have no label and are skipped",)
    return replace(collection, name=table_kinds.REVIEWED, notes=notes)


def _plain(image: str) -> str:
    """The name as it is on disk: an apostrophe that keeps a spreadsheet from calculating is taken off."""
    plain = unescape_formula(image)
    return str(PurePosixPath(image)) if plain == image else plain
