"""Thresholds of the least expected cost: a missed melanoma weighed against an unneeded referral."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from skinlesion_cli.decisions.policies.base import PolicyResult
from skinlesion_cli.decisions.policies.published import default_priority
from skinlesion_cli.decisions.settings import Costs, FitSettings
from skinlesion_cli.decisions.statistics.lesions import group
from skinlesion_cli.decisions.statistics.metrics import checked
from skinlesion_cli.decisions.thresholds import decide, priority_order
from skinlesion_cli.errors import UsageError
from skinlesion_cli.taxonomy import ClassList

NEVER = 1.0
_MOST_PASSES = 20


def cost_matrix(missed: Mapping[str, float], classes: ClassList, unneeded: float = 1.0) -> np.ndarray:
    """Costs by true class (rows) and decided class (columns): float64 of shape (n_classes,
    n_classes), 0 on the diagonal.

    Parameters
    ----------
    missed : malignant class -> cost of deciding a benign class on it. All malignant classes need one.
    unneeded : cost of deciding a malignant class on a benign lesion. Confusion within one side costs nothing.
    """
    unknown = [name for name in missed if name not in classes.malignant_codes]
    lacking = [name for name in classes.malignant_codes if name not in missed]
    if unknown or lacking:
        raise UsageError(
            f"costs are needed for exactly {', '.join(classes.malignant_codes)}"
            + (f"; lacking: {', '.join(lacking)}" if lacking else "")
            + (f"; not malignant: {', '.join(unknown)}" if unknown else ""),
            _example(classes),
        )
    n_classes = classes.n_classes
    matrix = np.zeros((n_classes, n_classes))
    matrix[np.ix_(~classes.is_malignant, classes.is_malignant)] = unneeded
    for name, cost in missed.items():
        matrix[classes.index[name], ~classes.is_malignant] = cost
    return checked_costs(matrix, classes)


def _example(classes: ClassList) -> str:
    codes = classes.malignant_codes
    given = " ".join(f"--cost {code}={20 if code == codes[0] else 5}" for code in codes)
    return f"Example: {given} (an unneeded referral costs 1)."


def checked_costs(costs: Sequence[Sequence[float]] | np.ndarray, classes: ClassList) -> np.ndarray:
    """A full cost matrix, or a UsageError that says what is wrong with it."""
    n_classes = classes.n_classes
    try:
        matrix = np.asarray(costs, dtype=np.float64)
    except ValueError:  # rows of different lengths
        matrix = np.empty(0)
    if matrix.shape != (n_classes, n_classes) or not np.isfinite(matrix).all() or (matrix < 0).any():
        raise UsageError(
            f"a cost matrix has {n_classes} rows (true class) of {n_classes} costs (decided class), "
            "none negative",
            "Order of both: " + ", ".join(classes.codes),
        )
    return matrix


def cost_thresholds(
    labels: np.ndarray,
    probabilities: np.ndarray,
    lesion_ids: np.ndarray,
    costs: np.ndarray,
    classes: ClassList,
    priority: Sequence[str] = (),
    codes: Sequence[str] | None = None,
) -> dict[str, float]:
    """Thresholds of the least mean cost a lesion on these images (each lesion counts once).

    One class at a time takes its best threshold while the others stand, until none moves. Of equally cheap
    thresholds the largest is taken, so that a class without images never fires. It guarantees nothing about
    new images, and the costs weigh classes as often as they occur here.

    `codes` : classes that get a threshold; None: the malignant ones.
    """
    values, labels = checked(probabilities), np.asarray(labels)
    lesions = group(lesion_ids, labels)
    weights = 1.0 / lesions.sizes[lesions.codes]
    thresholds = dict.fromkeys(classes.malignant_codes if codes is None else codes, NEVER)
    order = priority_order(thresholds, priority or default_priority(classes), classes)
    for _ in range(_MOST_PASSES):
        before = dict(thresholds)
        for name in order:
            thresholds[name] = _best(name, labels, values, weights, costs, thresholds, order, classes)
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
    classes: ClassList,
) -> float:
    index, position = classes.index[name], order.index(name)
    others = {other: theta for other, theta in thresholds.items() if other != name}
    without = decide(values, others, classes, order)
    higher = [classes.index[other] for other in order[:position]]
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


def matrix_of(costs: Costs, classes: ClassList) -> np.ndarray:
    """The cost matrix that settings stand for, see `cost_matrix`.

    Raises
    ------
    UsageError : the costs do not fit the classes.
    """
    if costs.matrix is not None:
        return checked_costs(costs.matrix, classes)
    return cost_matrix(costs.missed, classes, costs.unneeded)


def check(settings: FitSettings, classes: ClassList) -> None:
    """Costs are needed, of something that can be missed."""
    if not classes.has_malignant:
        raise UsageError(
            f"no class of {classes.described} is malignant: the policy `cost` weighs missing one",
            "Use --policy none.",
        )
    if settings.costs is None:
        raise UsageError("the policy `cost` needs costs: there is no sensible default", _example(classes))
    matrix_of(settings.costs, classes)


def find(
    labels: np.ndarray,
    probabilities: np.ndarray,
    lesion_ids: np.ndarray,
    settings: FitSettings,
    classes: ClassList,
) -> PolicyResult:
    """The policy `cost`."""
    assert settings.costs is not None
    costs = matrix_of(settings.costs, classes)
    return PolicyResult(cost_thresholds(labels, probabilities, lesion_ids, costs, classes, settings.priority))
