"""Adaptive test-time augmentation: when has an image been seen often enough?

After k of K views the mean over all of them can still move, by an amount that shrinks as sqrt(1/k - 1/K) (the
standard error of a mean of k drawn from K without replacement; Cochran, 1977, eq. 2.12, up to its constant). An
image is settled when its probabilities are further from every boundary of the decision than `reach` times that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast, get_args

import numpy as np

from skinlesion_cli.decisions.calibration import ProbabilityCalibration
from skinlesion_cli.decisions.thresholds import decide, priority_order
from skinlesion_cli.decisions.triage import (
    IS_MALIGNANT,
    DecisionRule,
    apply_rule,
    malignant_probability,
)
from skinlesion_cli.errors import UsageError
from skinlesion_cli.taxonomy import CLASS_INDEX

Guard = Literal["decision", "triage"]
# Probabilities nearer to 0 or 1 than this count as this: float32 tells them apart no better.
_LEAST = 1e-6


@dataclass(frozen=True)
class StoppingRule:
    """Settled images need no further view.

    Attributes
    ----------
    rule : whose decisions must not change. It was fitted on the mean over all `n_views`, and stays as it was
        when thresholds are then calibrated on what this rule lets through.
    guard : what must not change: the `decision` (the class), or the `triage` level as well.
    reach : how far, in log odds, the views yet unseen may carry the mean; larger is more careful.
    """

    rule: DecisionRule
    reach: float
    n_views: int
    guard: Guard = "decision"

    def settled(self, probabilities: np.ndarray, n_views: int) -> np.ndarray:
        """bool (n,): which means over the first `n_views` views, shape (n, 7), need no further view."""
        if n_views >= self.n_views:
            return np.ones(len(probabilities), dtype=bool)
        spread = np.sqrt(1.0 / n_views - 1.0 / self.n_views)
        return margin(self.rule, probabilities, self.guard) > self.reach * spread

    def to_json(self) -> dict[str, Any]:
        """In JSON types."""
        return {
            "rule": asdict(self.rule),
            "reach": self.reach,
            "n_views": self.n_views,
            "guard": self.guard,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> StoppingRule:
        """What `to_json` wrote."""
        rule = dict(stored["rule"])
        fitted = dict(rule["probability_calibration"])
        calibration = ProbabilityCalibration(
            method=fitted["method"],
            temperature=fitted["temperature"],
            weights=tuple(fitted["weights"]),
            biases=tuple(fitted["biases"]),
        )
        return cls(
            rule=DecisionRule(
                probability_calibration=calibration,
                thresholds=dict(rule["thresholds"]),
                priority=tuple(rule["priority"]),
                malignant_threshold=rule["malignant_threshold"],
                conformal_minimum=tuple(rule["conformal_minimum"]),
            ),
            reach=float(stored["reach"]),
            n_views=int(stored["n_views"]),
            guard=stored["guard"],
        )


def margin(rule: DecisionRule, ensemble_probabilities: np.ndarray, guard: Guard = "decision") -> np.ndarray:
    """How far each image is from another decision: float64 (n,), in log odds of calibrated probabilities, >= 0.

    The least distance to any boundary that matters as things stand: the thresholds of classes that would take
    precedence, the threshold that fired or else the second best class, and, where the triage level is guarded
    too, the malignant operating point and the minimum of the conformal set. In log odds, because there one view more moves a
    probability near 0 about as far as one near 1/2.
    """
    calibrated = np.asarray(rule.probability_calibration.apply(ensemble_probabilities), dtype=np.float64)
    decisions = decide(calibrated, rule.thresholds, rule.priority)
    odds = _log_odds(calibrated)
    ordered = np.sort(calibrated, axis=1)
    found = np.log(np.maximum(ordered[:, -1], _LEAST)) - np.log(np.maximum(ordered[:, -2], _LEAST))
    for name in reversed(priority_order(rule.thresholds, rule.priority)):
        index = CLASS_INDEX[name]
        distance = odds[:, index] - _log_odds(rule.thresholds[name])
        # A class that fires makes all that is less important than it irrelevant.
        found = np.where(distance > 0, distance, np.minimum(found, -distance))
    if guard == "decision":
        return found
    if rule.malignant_threshold is not None:
        malignant = malignant_probability(calibrated).astype(np.float64)
        away = np.abs(_log_odds(malignant) - _log_odds(rule.malignant_threshold))
        found = np.where(IS_MALIGNANT[decisions.decided], found, np.minimum(found, away))
    if rule.conformal_minimum:
        over = odds - _log_odds(np.asarray(rule.conformal_minimum))
        holds_malignant = over[:, IS_MALIGNANT].max(axis=1)
        holds_benign = over[:, ~IS_MALIGNANT].max(axis=1)
        found = np.minimum(found, np.minimum(np.abs(holds_malignant), np.abs(holds_benign)))
    return found


def _log_odds(probability: np.ndarray | float) -> np.ndarray:
    clipped = np.clip(np.asarray(probability, dtype=np.float64), _LEAST, 1.0 - _LEAST)
    return np.log(clipped / (1.0 - clipped))


def guard_named(name: str | None) -> Guard | None:
    """What `--adaptive` guards.

    Raises
    ------
    UsageError : neither `decision` nor `triage`.
    """
    if name not in (None, *get_args(Guard)):
        raise UsageError(f"--adaptive {name!r} guards nothing", "Known: " + ", ".join(get_args(Guard)))
    return cast(Guard | None, name)


def stopped_means(stopping: StoppingRule, view_probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What prediction under the rule would average.

    Parameters
    ----------
    view_probabilities : float32 (n, n_views, 7), the ensemble's probabilities view by view, in view order.

    Returns
    -------
    float32 (n, 7), the mean over the views seen; int64 (n,), how many those are.
    """
    sums = np.cumsum(view_probabilities, axis=1, dtype=np.float64)
    n_images, total = view_probabilities.shape[:2]
    means, views = np.empty((n_images, view_probabilities.shape[2]), np.float32), np.zeros(n_images, np.int64)
    waiting = np.arange(n_images)
    for seen in range(1, total + 1):
        if not len(waiting):
            break
        now = (sums[waiting, seen - 1] / seen).astype(np.float32)
        done = stopping.settled(now, seen) if seen < total else np.ones(len(waiting), dtype=bool)
        means[waiting[done]], views[waiting[done]] = now[done], seen
        waiting = waiting[~done]
    return means, views


def changed(
    rule: DecisionRule, first: np.ndarray, second: np.ndarray, guard: Guard = "decision"
) -> np.ndarray:
    """bool (n,): images of which what is guarded differs between `first` and `second`, both (n, 7)."""
    one, other = apply_rule(rule, first), apply_rule(rule, second)
    differing = one.decisions.decided != other.decisions.decided
    return differing if guard == "decision" else differing | (one.triage != other.triage)
