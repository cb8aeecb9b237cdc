"""Figures on labelled predictions. What is undefined is NaN, never 0 or 1.

A class without images in `labels` has no sensitivity, a class never predicted no predictive value, and one
class alone no specificity and no AUC. `labels` and `predicted` hold class indexes; a predicted -1 is "none"
and never right.
"""

from __future__ import annotations

import numpy as np

from skinlesion_cli.errors import DataError
from skinlesion_cli.taxonomy import ClassList

TIE = -1
FEWEST_CLASSES = 2


def checked(probabilities: np.ndarray) -> np.ndarray:
    """The probabilities as float64 of shape (n_images, n_classes).

    Raises
    ------
    DataError : another shape, or a value that is not a finite number in [0, 1].
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] < FEWEST_CLASSES:
        raise DataError(f"expected probabilities of shape (n_images, n_classes), got {values.shape}")
    # Softmax rounded to float32 may end a hair above 1.
    bad = ~(np.isfinite(values) & (values >= 0.0) & (values <= 1.0 + 1e-6)).all(axis=1)
    if bad.any():
        rows = np.flatnonzero(bad)
        raise DataError(
            f"{rows.size} rows hold something that is no probability; the first is row {rows[0]}: "
            f"{values[rows[0]].tolist()}"
        )
    return np.minimum(values, 1.0)


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """int64 of shape (n_classes, n_classes + 1): rows are true classes, columns predicted ones; the last
    column is "none".
    """
    column = np.where(np.asarray(predicted) < 0, n_classes, predicted)
    flat = np.asarray(labels) * (n_classes + 1) + column
    return np.bincount(flat, minlength=n_classes * (n_classes + 1)).reshape(n_classes, n_classes + 1)


def ratio(part: np.ndarray | float, whole: np.ndarray | float) -> np.ndarray:
    """`part / whole`, NaN where `whole` is 0."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    result: np.ndarray = np.divide(
        part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0
    )
    return result


def recalls(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Sensitivity of every class: float64 of shape (n_classes,), NaN for classes without images."""
    matrix = confusion_matrix(labels, predicted, n_classes)
    return ratio(np.diagonal(matrix), matrix.sum(axis=1))


def sensitivity(labels: np.ndarray, predicted: np.ndarray, class_index: int) -> float:
    """Share of the images of a class that are decided as it; NaN without such images."""
    mine = np.asarray(labels) == class_index
    return float(ratio((np.asarray(predicted)[mine] == class_index).sum(), mine.sum()))


def specificity(labels: np.ndarray, predicted: np.ndarray, class_index: int) -> float:
    """Share of the images of other classes that are not decided as this one; NaN without such images."""
    others = np.asarray(labels) != class_index
    return float(ratio((np.asarray(predicted)[others] != class_index).sum(), others.sum()))


def missing_classes(labels: np.ndarray, classes: ClassList) -> tuple[str, ...]:
    """Codes of the classes without a single image; a BACC is told together with them."""
    present = set(np.unique(labels).tolist())
    return tuple(name for index, name in enumerate(classes.codes) if index not in present)


def balanced_accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Mean sensitivity over the classes that have images; NaN if there are none.

    A class without images is omitted, as in scikit-learn. Report `missing_classes` with the figure, which is
    then not the BACC of all classes.
    """
    n_classes = int(max(np.max(labels, initial=0), np.max(predicted, initial=0))) + 1
    sensitivities = recalls(labels, predicted, n_classes)
    defined = sensitivities[~np.isnan(sensitivities)]
    return float(defined.mean()) if defined.size else float("nan")


def scored_argmax(probabilities: np.ndarray) -> np.ndarray:
    """int64 (n_images,): the argmax as the official scorer counts it, -1 where the maximum is tied."""
    values = np.asarray(probabilities)
    top = values.max(axis=1, keepdims=True)
    tied = (values == top).sum(axis=1) > 1
    return np.where(tied, TIE, values.argmax(axis=1)).astype(np.int64)
