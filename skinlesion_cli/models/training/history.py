"""The figures recorded for each epoch."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional as F

from skinlesion_cli.decisions.statistics.metrics import balanced_accuracy, sensitivity
from skinlesion_cli.taxonomy import CLASS_INDEX, MALIGNANT_CLASSES

HISTORY_COLUMNS = (
    *("epoch", "learning_rate", "train_loss", "val_loss", "val_bacc"),
    *(f"sensitivity_{name}" for name in MALIGNANT_CLASSES),
)
Row = dict[str, float | None]


def history_row(
    epoch: int,
    learning_rate: float | None,
    train_loss: float | None,
    labels: np.ndarray,
    logits: np.ndarray,
) -> Row:
    """The history row of an epoch, from labels, int64 (n,), and logits, float32 (n, 7),
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
    for name in MALIGNANT_CLASSES:
        value = sensitivity(labels, predicted, CLASS_INDEX[name])
        row[f"sensitivity_{name}"] = None if math.isnan(value) else value
    return row
