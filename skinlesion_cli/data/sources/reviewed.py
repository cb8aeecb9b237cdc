"""A list that people filled in: `reviewed.csv` of the page to review a batch, or the list of `skinlesion select`.

It has `image` and `label`, and columns of its own that say how the image came to be on it. Rows without a label
say nothing about the class and are left out.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from skinlesion_cli.artifacts import tables
from skinlesion_cli.artifacts.prediction_columns import escape_formula
from skinlesion_cli.data.sources import labels_csv
from skinlesion_cli.data.sources.base import Collection, SourceOptions

OWN_COLUMNS = frozenset(
    [
        "review",
        "decision",
        "malignant_probability",
        "note",
        "rank",
        "margin",
        "entropy",
        "disagreement",
        "strategy",
        "model_sha256",
    ]
)


def recognise(path: Path) -> bool:
    """Whether this is such a list: a CSV with `image`, `label`, and `review` or `rank`."""
    found = labels_csv.columns(path)
    return {"image", "label"} <= found and bool(found & labels_csv.REVIEW_COLUMNS)


def read(path: Path, options: SourceOptions) -> Collection:
    """Read the rows that have a label, as `labels_csv` does.

    Raises
    ------
    DataError : as `labels_csv.read`; no row has a label.
    """
    table = tables.read_csv(path, path.name)
    table = table.drop(columns=[column for column in table.columns if column in OWN_COLUMNS])
    named = table[table["label"].str.strip() != ""].reset_index(drop=True)
    named["image"] = [_plain(image) for image in named["image"]]
    collection = labels_csv.from_table(named, path)
    if len(named) == len(table):
        return collection
    note = f"{len(table) - len(named):,} of {len(table):,} rows have no label and are left out"
    return Collection("reviewed", collection.records, "unknown", "unknown", (*collection.notes, note))


def _plain(image: str) -> str:
    """The name as it is on disk: an apostrophe that keeps a spreadsheet from calculating is taken off."""
    return image[1:] if image[:1] == "'" and escape_formula(image[1:]) == image else str(PurePosixPath(image))
