"""The figures recorded for each epoch."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional as F

from skinlesion_cli.decisions.statistics.metrics import balanced_accuracy, sensitivity
from skinlesion_cli.taxonomy.class_list import ClassList

Row = dict[str, float | None]


def history_columns(classes: ClassList) -> tuple[str, ...]:
    """The columns of a history: of the malignant classes, the sensitivity of each is watched."""
    watched = (sensitivity_column(code) for code in classes.malignant_codes)
    return ("epoch", "learning_rate", "train_loss", "val_loss", "val_bacc", *watched)


def sensitivity_column(code: str) -> str:
    """The column of the sensitivity of a class."""
    return f"sensitivity_{code}"


def history_row(
    epoch: int,
    learning_rate: float | None,
    train_loss: float | None,
    labels: np.ndarray,
    logits: np.ndarray,
    classes: ClassList,
) -> Row:
    """The history row of an epoch, from labels, int64 (n,), and logits, float32 (n, n_classes),
    of the validation images.

    `val_loss` is the plain cross entropy; the sensitivity of a class without images is None.
    """
    predicted = logits.argmax(axis=1)
    row: Row = {
        "epoch": epoch,
        "learning_rate": learning_rate,
        "train_loss": train_loss,
        "val_loss": float(F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))),
        "val_bacc": balanced_accuracy(labels, predicted),
    }
    for code in classes.malignant_codes:
        value = sensitivity(labels, predicted, classes.index[code])
        row[sensitivity_column(code)] = None if math.isnan(value) else value
    return row
