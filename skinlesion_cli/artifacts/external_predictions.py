"""Predictions and truth from elsewhere: plain CSV tables, read with nothing guessed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from skinlesion_cli.artifacts import manifest as manifests
from skinlesion_cli.artifacts import tables
from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.files import sha256_file
from skinlesion_cli.artifacts.predictions import PROBABILITY_COLUMNS, Predictions
from skinlesion_cli.errors import DataError, name_items
from skinlesion_cli.taxonomy import CLASS_INDEX, CLASS_NAMES

VIEWS: tuple[str, ...] = ("outside",)
_ID_COLUMNS = ("id", "image", "image_id")
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Truth:
    """`table` has the columns id, label and lesion_id, one row an image.

    `lesions_known` is False where every image had to be taken for a lesion of its own.
    """

    table: pd.DataFrame
    lesions_known: bool


@dataclass(frozen=True)
class OutsidePredictions:
    """`decided` are class indexes (n_images,) where the table has a column `decision`, else None."""

    predictions: Predictions
    decided: np.ndarray | None
    lesions_known: bool


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(f"there is no table {path}")
    table = tables.read_csv(path, path.name)
    identity = next((column for column in _ID_COLUMNS if column in table.columns), None)
    if identity is None:
        raise DataError(f"{path.name} has no column of image ids", "Name it `id` or `image`.")
    table = table.rename(columns={identity: "id"})
    repeated = table["id"][table["id"].duplicated()]
    if len(repeated):
        raise DataError(f"{path.name} names these images more than once: {name_items(repeated)}")
    return table


def _numbers(table: pd.DataFrame, columns: tuple[str, ...], name: str) -> np.ndarray:
    numbers = table[list(columns)].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    bad = ~(np.isfinite(numbers) & (numbers >= 0.0) & (numbers <= 1.0 + 1e-6)).all(axis=1)
    if bad.any():
        raise DataError(f"{name} holds something that is no probability for {name_items(table['id'][bad])}")
    return numbers


def _labels(table: pd.DataFrame, name: str) -> pd.Series | None:
    if "label" in table.columns:
        unknown = table["id"][~table["label"].isin(CLASS_INDEX)]
        if len(unknown):
            raise DataError(
                f"{name} has no known class for {name_items(unknown)}", "Known: " + ", ".join(CLASS_NAMES)
            )
        return table["label"]
    return None


def read_truth(path: Path) -> Truth:
    """Labels from a CSV: a column `label`, or the official one-hot columns; `lesion_id` where there is one.

    Raises
    ------
    DataError : no labels, an unknown class, an image without exactly one class.
    """
    table = _read(path)
    labels = _labels(table, path.name)
    if labels is None:
        if any(name not in table.columns for name in CLASS_NAMES):
            raise DataError(
                f"{path.name} has no labels",
                "Give a column `label`, or the columns " + ", ".join(CLASS_NAMES),
            )
        one_hot = _numbers(table, CLASS_NAMES, path.name) > 0.5
        unclear = table["id"][one_hot.sum(axis=1) != 1]
        if len(unclear):
            raise DataError(f"{path.name} does not give exactly one class for {name_items(unclear)}")
        labels = pd.Series(np.array(CLASS_NAMES, dtype=object)[one_hot.argmax(axis=1)], index=table.index)
    return _truth(table["id"], labels, table.get("lesion_id"))


def find_truth(file: Path | None, manifest: Path) -> Truth | None:
    """The truth of `file`; without one, of the manifest; None where there is neither."""
    if file is not None:
        return read_truth(file)
    if not manifest.exists():
        return None
    return Truth(manifests.read(manifest).table[["id", "label", "lesion_id"]], lesions_known=True)


def _truth(ids: pd.Series, labels: pd.Series, lesions: pd.Series | None) -> Truth:
    known = lesions is not None and bool((lesions != "").all())
    own = ids if lesions is None else lesions.where(lesions != "", "image:" + ids)
    return Truth(pd.DataFrame({"id": ids, "label": labels, "lesion_id": own}), known)


def read_predictions(path: Path, truth: Truth | None, part: str = "val") -> OutsidePredictions:
    """Predictions from a CSV: columns `p_MEL` ... (or `MEL` ...), one row an image, rows summing to 1.

    Labels and lesions come from the table itself (`label`, `lesion_id`) or from `truth`.

    Raises
    ------
    DataError : naming the images that cannot be used.
    """
    table = _read(path)
    columns = next(
        (names for names in (PROBABILITY_COLUMNS, CLASS_NAMES) if set(names) <= set(table.columns)), None
    )
    if columns is None:
        raise DataError(f"{path.name} lacks probabilities", "Name them " + ", ".join(PROBABILITY_COLUMNS))
    if "status" in table.columns:
        failed = table["id"][table["status"] != "ok"]
        if len(failed):
            raise DataError(
                f"{path.name} has no prediction for {name_items(failed)}", "Leave these rows out."
            )
    values = _numbers(table, columns, path.name)
    off = np.abs(values.sum(axis=1) - 1.0) > _SUM_TOLERANCE
    if off.any():
        raise DataError(
            f"{path.name}: the probabilities do not sum to 1 for {name_items(table['id'][off])}",
            "Scores that are no probabilities have to be made so first (softmax).",
        )
    labels = _labels(table, path.name)
    if labels is not None:
        truth = _truth(table["id"], labels, table.get("lesion_id"))
    if truth is None:
        raise DataError(
            f"{path.name} has no column `label`, and no truth was given", "Give one with --truth FILE.csv."
        )
    known = truth.table.set_index("id")
    unknown_ids = table["id"][~table["id"].isin(known.index)]
    if len(unknown_ids):
        raise DataError(f"{path.name} predicts images without a known class: {name_items(unknown_ids)}")
    rows = known.loc[table["id"]].reset_index()[["id", "lesion_id", "label"]].assign(fold="")
    decided = None
    if "decision" in table.columns:
        unknown = table["id"][~table["decision"].isin(CLASS_INDEX)]
        if len(unknown):
            raise DataError(f"{path.name} has an unknown decision for {name_items(unknown)}")
        decided = table["decision"].map(CLASS_INDEX).to_numpy(dtype=np.int64)
    stand_in = Artifact(path, "table", sha256_file(path), {}, {}, {"split": "outside"}, None, None, None)
    predictions = Predictions(
        rows, values.astype(np.float32)[:, None], VIEWS, source=path.stem, part=part, artifact=stand_in
    )
    return OutsidePredictions(predictions, decided, truth.lesions_known)
