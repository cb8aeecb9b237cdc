"""Predictions and truth from elsewhere: plain CSV tables, in the layouts that people have.

Column names are matched in any case and by the usual synonyms. Ids are matched as they stand; where some do
not match, without folders and image suffixes, and the notes say so.
Nothing about a class or a probability is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

import numpy as np
import pandas as pd

from skinlesion_cli.artifacts import user_tables
from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.files import sha256_file
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.prediction_columns import unescape_formula
from skinlesion_cli.artifacts.predictions import Predictions, probability_columns
from skinlesion_cli.decisions.levels import LEVELS
from skinlesion_cli.errors import DataError, name_items
from skinlesion_cli.taxonomy import plain_name
from skinlesion_cli.taxonomy.class_list import ClassList

VIEWS: tuple[str, ...] = ("outside",)
_ID_COLUMNS = ("id", "image", "image_id", "isic_id", "filename", "file", "image_name", "path")
_KNOWN_COLUMNS = ("label", "lesion_id", "decision", "status", "triage", "alarm", "notes", "model_sha256")
_SUFFIX = re.compile(r"\.(jpe?g|jfif|png|tiff?|bmp|webp|gif|dcm|dicom|heic|avif|jp2|jxl)$", re.IGNORECASE)
_SUM_TOLERANCE = 1e-3
# A probability rounded to two decimals is off by this at most.
_ROUNDED_TOLERANCE = 0.00502


@dataclass(frozen=True)
class Truth:
    """`table` has the columns id, label and lesion_id, one row per image.

    `lesions_known` is False where every image had to be taken for a lesion of its own. Labels are codes of
    `classes`.
    """

    table: pd.DataFrame
    lesions_known: bool
    classes: ClassList


@dataclass(frozen=True)
class ExternalPredictions:
    """A table of predictions, joined to its truth.

    Attributes
    ----------
    decided : int64 (n_images,), class indexes of the column `decision`; None without that column.
    levels : (n_images,), triage levels of the column `triage`; None without that column.
    alarms : (n_images,), texts of the column `alarm` (empty: none); None without that column.
    label_classes : the list that the labels are of; that of the predictions may be finer.
    image_notes : (n_images,), texts of the column `notes` (empty: none); None without that column.
    model_sha256 : the model that every row names; empty where they name none, or several.
    notes : what a reader of the figures has to know: how ids were matched, what was left out or renormalised.
    """

    predictions: Predictions
    decided: np.ndarray | None
    lesions_known: bool
    label_classes: ClassList
    levels: np.ndarray | None = None
    alarms: np.ndarray | None = None
    image_notes: np.ndarray | None = None
    model_sha256: str = ""
    notes: tuple[str, ...] = ()


def _read(path: Path, classes: ClassList, *, label_synonyms: bool = False) -> pd.DataFrame:
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


def _numbers(table: pd.DataFrame, columns: Sequence[str], name: str) -> np.ndarray:
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


def _labels(table: pd.DataFrame, name: str, classes: ClassList) -> pd.Series | None:
    if "label" not in table.columns:
        return None
    labels = table["label"].map(classes.class_named)
    unknown = table["id"][labels.isna()]
    if len(unknown):
        raise DataError(
            f"{name} has no known class for {name_items(unknown)}", "Known: " + ", ".join(classes.codes)
        )
    return labels


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


def read_truth(path: Path, classes: ClassList) -> Truth:
    """Labels from a CSV: a column `label`, or the official one-hot columns; `lesion_id` where there is one.

    Raises
    ------
    DataError : no labels, an unknown class, an image without exactly one class.
    """
    table = _read(path, classes, label_synonyms=True)
    labels = _labels(table, path.name, classes)
    if labels is None:
        table = table.rename(columns=dict(zip(probability_columns(classes), classes.codes, strict=True)))
        if any(name not in table.columns for name in classes.codes):
            raise DataError(
                f"{path.name} has no labels",
                "Give a column `label`, or the columns " + ", ".join(classes.codes),
            )
        one_hot = _numbers(table, classes.codes, path.name) > 0.5
        unclear = table["id"][one_hot.sum(axis=1) != 1]
        if len(unclear):
            raise DataError(f"{path.name} does not give exactly one class for {name_items(unclear)}")
        labels = pd.Series(np.array(classes.codes, dtype=object)[one_hot.argmax(axis=1)], index=table.index)
    return _truth(table["id"], labels, table.get("lesion_id"), classes)


def find_truth(file: Path | None, manifest: Path, classes: ClassList) -> Truth | None:
    """The truth of `file`, in the classes of this list; without one, of the manifest, in those of its own.

    None where there is neither.
    """
    if file is not None:
        return read_truth(file, classes)
    if not manifest.exists():
        return None
    stored = Manifest.load(manifest)
    return Truth(stored.table[["id", "label", "lesion_id"]], lesions_known=True, classes=stored.classes)


def _truth(ids: pd.Series, labels: pd.Series, lesions: pd.Series | None, classes: ClassList) -> Truth:
    known = lesions is not None and bool((lesions != "").all())
    own = ids if lesions is None else lesions.where(lesions != "", "image:" + ids)
    return Truth(pd.DataFrame({"id": ids, "label": labels, "lesion_id": own}), known, classes)


def bare_id(identity: str) -> str:
    """An id without its folders and the suffix of an image file: `a\\b\\ISIC_1.jpg` is `ISIC_1`."""
    return _SUFFIX.sub("", PureWindowsPath(identity).name)


def _joined(ids: pd.Series, truth: Truth, name: str) -> tuple[pd.DataFrame, list[str]]:
    """The truth of each id, in their order, and notes."""
    known, notes = truth.table.set_index("id", drop=False), []
    if not ids.isin(known.index).all():
        bare, bare_known = ids.map(bare_id), known["id"].map(bare_id)
        for whose, values in (("the predictions", bare), ("the truth", bare_known)):
            repeated = values[values.duplicated()]
            if len(repeated):
                raise DataError(
                    f"ids of {name} do not match those of the truth, and without folders and suffixes "
                    f"{whose} "
                    f"name an image more than once: {name_items(sorted(set(repeated)))}",
                    "Give both tables the same ids.",
                )
        n_exact = int(ids.isin(known.index).sum())
        known = known.set_index(pd.Index(bare_known.to_numpy(), name="bare"))
        unknown_ids = ids[~bare.isin(known.index)]
        if len(unknown_ids):
            raise DataError(
                f"{name} predicts {len(unknown_ids)} images without a known class: {name_items(unknown_ids)}",
                "Add them to the truth, or leave them out of the predictions.",
            )
        notes.append(f"{len(ids) - n_exact:,} ids were matched without their folder and suffix")
        ids = bare
    rows = known.loc[ids, ["id", "lesion_id", "label"]].reset_index(drop=True).assign(fold="")
    if len(rows) < len(truth.table):
        notes.append(
            f"{len(truth.table) - len(rows):,} images of the truth have no prediction and are not judged"
        )
    return rows, notes


def _probabilities(table: pd.DataFrame, name: str, classes: ClassList) -> tuple[np.ndarray, list[str]]:
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
    values = _numbers(table, columns, name)
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


def _texts(table: pd.DataFrame, column: str) -> np.ndarray | None:
    return table[column].to_numpy(dtype=str) if column in table.columns else None


def read_predictions(
    path: Path,
    truth: Truth | None,
    part: str = "val",
    *,
    classes: ClassList,
    label_classes: ClassList | None = None,
) -> ExternalPredictions:
    """Predictions from a CSV: a column for each class of the list (`p_CODE`, or `CODE`), one row per
    image, rows summing to 1.

    Labels and lesions come from the table itself (`label`, `lesion_id`), as classes of the list or else of
    `label_classes`, or from `truth`. Rows of images that
    could not be read (`status` other than `ok`) are left out and counted. Where present, `decision`, `triage`
    and `alarm` are what was decided on each image.

    Raises
    ------
    DataError : naming the images that cannot be used.
    """
    table, notes = _read(path, classes), []
    if "status" in table.columns:
        failed = table["status"] != "ok"
        if failed.all():
            raise DataError(f"{path.name} has no prediction for {name_items(table['id'])}")
        if failed.any():
            notes.append(
                f"{int(failed.sum()):,} images could not be read and are not judged: "
                f"{name_items(table['id'][failed])}"
            )
            table = table[~failed].reset_index(drop=True)
    values, renormalised = _probabilities(table, path.name, classes)
    labels_of = label_classes or classes
    if "label" in table.columns and table["label"].map(classes.class_named).notna().all():
        labels_of = classes
    labels = _labels(table, path.name, labels_of)
    if labels is not None:
        truth = _truth(table["id"], labels, table.get("lesion_id"), labels_of)
    if truth is None:
        raise DataError(
            f"{path.name} has no column `label`, and no truth was given", "Give one with --truth FILE.csv."
        )
    rows, matched = _joined(table["id"], truth, path.name)
    stand_in = Artifact(
        path, "table", sha256_file(path), {}, {}, {"split": "outside"}, None, None, None, classes=classes
    )
    predictions = Predictions(
        rows,
        values.astype(np.float32)[:, None],
        VIEWS,
        source=path.stem,
        part=part,
        classes=classes,
        artifact=stand_in,
    )
    models = set(table["model_sha256"]) if "model_sha256" in table.columns else set()
    return ExternalPredictions(
        predictions,
        _decided(table, path.name, classes),
        truth.lesions_known,
        truth.classes,
        _levels(table, path.name),
        _texts(table, "alarm"),
        _texts(table, "notes"),
        model_sha256=models.pop() if len(models) == 1 else "",
        notes=(*notes, *renormalised, *matched),
    )


def _decided(table: pd.DataFrame, name: str, classes: ClassList) -> np.ndarray | None:
    if "decision" not in table.columns:
        return None
    unknown = table["id"][~table["decision"].isin(classes.codes)]
    if len(unknown):
        raise DataError(f"{name} has an unknown decision for {name_items(unknown)}")
    result: np.ndarray | None = table["decision"].map(classes.index).to_numpy(dtype=np.int64)
    return result


def _levels(table: pd.DataFrame, name: str) -> np.ndarray | None:
    if "triage" not in table.columns or (table["triage"] == "").all():
        return None
    unknown = table["id"][~table["triage"].isin(LEVELS)]
    if len(unknown):
        raise DataError(
            f"{name} has an unknown triage level for {name_items(unknown)}", "Levels: " + ", ".join(LEVELS)
        )
    return _texts(table, "triage")
