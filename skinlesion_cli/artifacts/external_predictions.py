"""Predictions from elsewhere: plain CSV tables, in the layouts that people have, joined to their truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.external_tables import class_labels, class_probabilities, read_table
from skinlesion_cli.artifacts.external_truth import Truth, truth_by_id, truth_of
from skinlesion_cli.artifacts.files import sha256_file
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.decisions.levels import LEVELS
from skinlesion_cli.errors import DataError, name_items
from skinlesion_cli.result import counted
from skinlesion_cli.taxonomy.class_list import ClassList

VIEWS: tuple[str, ...] = ("outside",)


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
    table, notes = read_table(path, classes), []
    if "status" in table.columns:
        failed = table["status"] != "ok"
        if failed.all():
            raise DataError(f"{path.name} has no prediction for {name_items(table['id'])}")
        if failed.any():
            notes.append(
                f"{counted(int(failed.sum()), 'image')} could not be read and not judged: "
                f"{name_items(table['id'][failed])}"
            )
            table = table[~failed].reset_index(drop=True)
    values, renormalised = class_probabilities(table, path.name, classes)
    labels_of = label_classes or classes
    if "label" in table.columns and table["label"].map(classes.class_named).notna().all():
        labels_of = classes
    labels = class_labels(table, path.name, labels_of)
    if labels is not None:
        truth = truth_of(table["id"], labels, table.get("lesion_id"), labels_of)
    if truth is None:
        raise DataError(
            f"{path.name} has no column `label`, and no truth was given", "Give one with --truth FILE.csv."
        )
    rows, matched = truth_by_id(table["id"], truth, path.name)
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


def _texts(table: pd.DataFrame, column: str) -> np.ndarray | None:
    return table[column].to_numpy(dtype=str) if column in table.columns else None
