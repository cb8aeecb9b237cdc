"""Thresholds of the least expected cost: a missed melanoma weighed against an unneeded referral."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from skinlesion_cli.decisions.policies.base import PolicyResult
from skinlesion_cli.decisions.settings import FitSettings
from skinlesion_cli.decisions.statistics.lesions import group
from skinlesion_cli.decisions.statistics.metrics import checked
from skinlesion_cli.decisions.thresholds import DEFAULT_PRIORITY, decide, priority_order
from skinlesion_cli.errors import UsageError
from skinlesion_cli.taxonomy import CLASS_INDEX, CLASS_NAMES, MALIGNANT_CLASSES, MALIGNANT_INDEXES, N_CLASSES

NEVER = 1.0
_MOST_PASSES = 20


def cost_matrix(missed: Mapping[str, float], unneeded: float = 1.0) -> np.ndarray:
    """Costs by true class (rows) and decided class (columns): float64 of shape (7, 7), 0 on the diagonal.

    Parameters
    ----------
    missed : malignant class -> cost of deciding a benign class on it. All malignant classes need one.
    unneeded : cost of deciding a malignant class on a benign lesion. Confusion within one side costs nothing.
    """
    unknown = [name for name in missed if name not in MALIGNANT_CLASSES]
    lacking = [name for name in MALIGNANT_CLASSES if name not in missed]
    if unknown or lacking:
        raise UsageError(
            f"costs are needed for exactly {', '.join(MALIGNANT_CLASSES)}"
            + (f"; lacking: {', '.join(lacking)}" if lacking else "")
            + (f"; not malignant: {', '.join(unknown)}" if unknown else ""),
            "Example: --cost MEL=20 --cost BCC=5 --cost AKIEC=5 (an unneeded referral costs 1).",
        )
    matrix = np.zeros((N_CLASSES, N_CLASSES))
    benign = [index for index in range(N_CLASSES) if index not in MALIGNANT_INDEXES]
    matrix[np.ix_(benign, list(MALIGNANT_INDEXES))] = unneeded
    for name, cost in missed.items():
        matrix[CLASS_INDEX[name], benign] = cost
    return checked_costs(matrix)


def checked_costs(costs: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    """A full cost matrix, or a UsageError that says what is wrong with it."""
    matrix = np.asarray(costs, dtype=np.float64)
    if matrix.shape != (N_CLASSES, N_CLASSES) or not np.isfinite(matrix).all() or (matrix < 0).any():
        raise UsageError(
            f"a cost matrix has {N_CLASSES} rows (true class) of {N_CLASSES} costs (decided class), "
            "none negative",
            "Order of both: " + ", ".join(CLASS_NAMES),
        )
    return matrix


def cost_thresholds(
    labels: np.ndarray,
    probabilities: np.ndarray,
    lesion_ids: np.ndarray,
    costs: np.ndarray,
    classes: Sequence[str] = MALIGNANT_CLASSES,
    priority: Sequence[str] = DEFAULT_PRIORITY,
) -> dict[str, float]:
    """Thresholds of the least mean cost a lesion on these images (each lesion counts once).

    One class at a time takes its best threshold while the others stand, until none moves. Of equally cheap
    thresholds the largest is taken, so that a class without images never fires. It guarantees nothing about
    new images, and the costs weigh classes as often as they occur here.
    """
    values, labels = checked(probabilities), np.asarray(labels)
    lesions = group(lesion_ids, labels)
    weights = 1.0 / lesions.sizes[lesions.codes]
    thresholds = dict.fromkeys(classes, NEVER)
    order = priority_order(thresholds, priority)
    for _ in range(_MOST_PASSES):
        before = dict(thresholds)
        for name in order:
            thresholds[name] = _best(name, labels, values, weights, costs, thresholds, order)
        if thresholds == before:
            break
    return thresholds


def _best(
    name: str,
    labels: np.ndarray,
    values: np.ndarray,
    weights: np.ndarray,
    costs: np.ndarray,
    thresholds: Mapping[str, float],
    order: Sequence[str],
) -> float:
    index, position = CLASS_INDEX[name], order.index(name)
    others = {other: theta for other, theta in thresholds.items() if other != name}
    without = decide(values, others, order)
    higher = [CLASS_INDEX[other] for other in order[:position]]
    free = np.flatnonzero(~np.isin(without.fired, higher))
    free = free[np.argsort(-values[free, index], kind="stable")]
    scores = values[free, index]
    change = costs[labels[free], index] - costs[labels[free], without.decided[free]]
    total = np.cumsum(change * weights[free])
    below = np.r_[scores[1:], 0.0] if len(scores) else scores
    ends = np.flatnonzero(scores > below)
    if not ends.size or total[ends].min() >= -1e-12:
        return NEVER
    first = ends[np.flatnonzero(total[ends] <= total[ends].min() + 1e-12)[0]]
    return float((scores[first] + below[first]) / 2)


def check(settings: FitSettings) -> None:
    """Costs are needed."""
    if settings.costs is None:
        raise UsageError(
            "the policy `cost` needs costs: nobody can guess them for you",
            "Example: --cost MEL=20 --cost BCC=5 --cost AKIEC=5 (an unneeded referral costs 1).",
        )


def find(
    labels: np.ndarray, probabilities: np.ndarray, lesion_ids: np.ndarray, settings: FitSettings
) -> PolicyResult:
    """The policy `cost`."""
    assert settings.costs is not None
    return PolicyResult(
        cost_thresholds(labels, probabilities, lesion_ids, settings.costs, priority=settings.priority)
    )
