"""Tables of labels or predictions from elsewhere: their columns, ids, labels and numbers, each checked.

Column names are matched in any case and by the usual synonyms. Nothing about a class or a probability is
guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from skinlesion_cli.artifacts import user_tables
from skinlesion_cli.artifacts.prediction_columns import unescape_formula
from skinlesion_cli.artifacts.predictions import probability_columns
from skinlesion_cli.errors import DataError, name_items
from skinlesion_cli.taxonomy import plain_name
from skinlesion_cli.taxonomy.class_list import ClassList

_ID_COLUMNS = ("id", "image", "image_id", "isic_id", "filename", "file", "image_name", "path")
_KNOWN_COLUMNS = ("label", "lesion_id", "decision", "status", "triage", "alarm", "notes", "model_sha256")
_SUM_TOLERANCE = 1e-3
# A probability rounded to two decimals is off by this at most.
_ROUNDED_TOLERANCE = 0.00502


def read_table(path: Path, classes: ClassList, *, label_synonyms: bool = False) -> pd.DataFrame:
    """The table with the ids in `id`, and known columns and those of classes by their names;
    decimal commas are points.

    With `label_synonyms`, a column `dx`, `diagnosis`, `class` and so on is the label: in a table of
    predictions it may as well be what was predicted.
    """
    if not path.is_file():
        raise DataError(f"there is no table {path}")
    written = user_tables.read(path, path.name)
    table = written.cells
    by_plain_name = {plain_name(header): header for header in reversed(table.columns)}
    of_classes = (*probability_columns(classes), *classes.codes)
    known = {
        name: by_plain_name[plain_name(name)]
        for name in (*_KNOWN_COLUMNS, *of_classes)
        if plain_name(name) in by_plain_name
    }
    for column in ("label", "lesion_id") if label_synonyms else ("lesion_id",):
        if column not in known and (headers := written.headers_of(column)):
            known[column] = headers[0]
    if not any(set(names) <= set(known) for names in (probability_columns(classes), classes.codes)):
        headers_by_class = written.class_headers(classes)
        known |= {classes.column(code): header for code, header in headers_by_class.items()}
    ids = [by_plain_name[plain_name(name)] for name in _ID_COLUMNS if plain_name(name) in by_plain_name]
    ids = ids or written.headers_of("image")
    if not ids:
        raise DataError(f"{path.name} has no column of image ids", "Name it `id` or `image`.")
    table = table.rename(columns={column: name for name, column in known.items()} | {ids[0]: "id"})
    if written.separator != ",":
        for column in set(of_classes) & set(table.columns):
            table[column] = user_tables.with_decimal_points(table[column])
    if "model_sha256" in table.columns:
        # Only tables that `predict` wrote have this column, and their ids are escaped for spreadsheets.
        table["id"] = table["id"].map(unescape_formula)
    repeated = table["id"][table["id"].duplicated()]
    if len(repeated):
        raise DataError(f"{path.name} names these images more than once: {name_items(repeated)}")
    return table


def share_columns(table: pd.DataFrame, columns: Sequence[str], name: str) -> np.ndarray:
    """float64 (n_rows, n_columns), finite.

    Raises
    ------
    DataError : a cell is not a number, or the numbers are logits or percentages instead of probabilities.
    """
    numbers: np.ndarray = (
        table[list(columns)].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    )
    bad = ~np.isfinite(numbers).all(axis=1)
    if bad.any():
        raise DataError(f"{name} has cells that are not numbers for {name_items(table['id'][bad])}")
    outside = ((numbers < 0.0) | (numbers > 1.0 + 1e-6)).any(axis=1)
    if not outside.any():
        return numbers
    named = name_items(table["id"][outside])
    sums = numbers.sum(axis=1)
    if (numbers >= 0.0).all() and (np.abs(sums - 100.0) < 100.0 * _ROUNDED_TOLERANCE * len(columns)).all():
        raise DataError(
            f"{name} holds percentages, not probabilities: rows sum to 100, for {named}",
            "Divide them by 100.",
        )
    if (numbers < 0.0).any() and outside.mean() > 0.5:
        raise DataError(
            f"{name} holds logits (negative values or values above 1), not probabilities, for {named}",
            "Apply softmax to each row first.",
        )
    raise DataError(f"{name} holds values outside 0 to 1, which are not probabilities, for {named}")


def class_labels(table: pd.DataFrame, name: str, classes: ClassList) -> pd.Series | None:
    """Codes of the column `label`, one per row; None without that column.

    Raises
    ------
    DataError : a label is no class of the list.
    """
    if "label" not in table.columns:
        return None
    labels = table["label"].map(classes.class_named)
    unknown = table["id"][labels.isna()]
    if len(unknown):
        raise DataError(
            f"{name} has no known class for {name_items(unknown)}", "Known: " + ", ".join(classes.codes)
        )
    return labels


def class_probabilities(table: pd.DataFrame, name: str, classes: ClassList) -> tuple[np.ndarray, list[str]]:
    """Probabilities, float64 (n_rows, n_classes), rows summing to 1, and notes on rounded ones.

    Raises
    ------
    DataError : a class has no column, or a row is not made of probabilities that sum to 1.
    """
    columns = next(
        (
            names
            for names in (probability_columns(classes), classes.codes)
            if set(names) <= set(table.columns)
        ),
        None,
    )
    if columns is None:
        raise DataError(f"{name} lacks probabilities", "Name them " + ", ".join(probability_columns(classes)))
    values = share_columns(table, columns, name)
    sums = values.sum(axis=1)
    off = np.abs(sums - 1.0) > _SUM_TOLERANCE
    if not off.any():
        return values, []
    rounded = (values == np.round(values, 2)).all() and (
        np.abs(sums - 1.0) <= _ROUNDED_TOLERANCE * classes.n_classes
    ).all()
    if not rounded:
        raise DataError(
            f"{name}: the probabilities do not sum to 1 for {name_items(table['id'][off])}",
            "Turn scores into probabilities first (softmax).",
        )
    note = f"{int(off.sum()):,} rows of rounded probabilities did not sum to 1 and were divided by their sum"
    return values / sums[:, None], [note]


def list_of_table(path: Path, candidates: Sequence[ClassList]) -> ClassList:
    """The list that the columns of a table of predictions are of; the first candidate where that is unclear.

    Columns `p_CODE` must be those of the list and no other; of columns `CODE`, the list that has most of them
    decides.
    """
    if not path.is_file():
        return candidates[0]
    headers = set(map(plain_name, user_tables.read(path, path.name).cells.columns))
    n_probabilities = sum(header.startswith("p ") for header in headers)
    for classes in candidates:
        if classes.n_classes == n_probabilities and set(map(plain_name, classes.columns)) <= headers:
            return classes
    complete = [classes for classes in candidates if set(map(plain_name, classes.codes)) <= headers]
    return max(complete, key=lambda classes: classes.n_classes, default=candidates[0])
