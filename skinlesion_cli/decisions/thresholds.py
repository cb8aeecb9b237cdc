"""Class thresholds and what they decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from skinlesion_cli.decisions.calibration import log_probabilities
from skinlesion_cli.decisions.statistics.metrics import checked
from skinlesion_cli.errors import UsageError, unknown_name
from skinlesion_cli.taxonomy import ClassList

NO_THRESHOLD = -1


@dataclass(frozen=True)
class Decisions:
    """One row an image, class indexes as int64 of shape (n_images,).

    `argmax` is the most probable class; `fired` the class whose threshold overrode the decision, -1 where
    none did.
    """

    argmax: np.ndarray
    decided: np.ndarray
    fired: np.ndarray


def priority_order(thresholds: Mapping[str, float], priority: Sequence[str], classes: ClassList) -> list[str]:
    """Classes with a threshold, the winner first; those not in `priority` come last, in class order."""
    for name in (*thresholds, *priority):
        if name not in classes.index:
            raise UsageError(unknown_name(name, classes.codes), f"Classes: {classes.described}.")
    named = [name for name in dict.fromkeys(priority) if name in thresholds]
    return named + [name for name in classes.codes if name in thresholds and name not in named]


def class_scores(calibrated: np.ndarray, offsets: Sequence[float]) -> np.ndarray:
    """log p + offset: float64 (n_images, n_classes). Without offsets the logarithms alone."""
    scores = log_probabilities(calibrated)
    return scores + np.asarray(offsets, dtype=np.float64) if len(offsets) else scores


def decide(
    probabilities: np.ndarray,
    thresholds: Mapping[str, float],
    classes: ClassList,
    priority: Sequence[str] = (),
    offsets: Sequence[float] = (),
) -> Decisions:
    """The argmax of log p + offset, overridden by the first class of `priority` whose probability exceeds its
    threshold.

    Parameters
    ----------
    probabilities : shape (n_images, n_classes).
    thresholds : class name -> θ; it fires where p > θ, compared in float64.
    priority : who wins where several fire.
    offsets : one per class (see `class_fit`); without them the class is the argmax of the probabilities.

    A tie for the argmax goes to the first class of the list.
    """
    values = checked(probabilities)
    argmax = values.argmax(axis=1).astype(np.int64)
    decided = class_scores(values, offsets).argmax(axis=1).astype(np.int64) if len(offsets) else argmax.copy()
    fired = np.full(len(values), NO_THRESHOLD, dtype=np.int64)
    for name in reversed(priority_order(thresholds, priority, classes)):
        index = classes.index[name]
        over = values[:, index] > thresholds[name]
        decided[over] = index
        fired[over] = index
    return Decisions(argmax, decided, fired)
