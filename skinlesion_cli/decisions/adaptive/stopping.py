"""Adaptive test-time augmentation: when has an image been looked at often enough?

After some of the looks (`decisions.adaptive.forward_passes`) the mean over all of them can still move, by about its standard error.
An image is settled when its probabilities are further from every boundary of the decision than `reach` times that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np

from skinlesion_cli.decisions.adaptive.forward_passes import Looks
from skinlesion_cli.decisions.thresholds import decide, priority_order
from skinlesion_cli.decisions.triage import IS_MALIGNANT, DecisionRule, apply_rule, malignant_probability
from skinlesion_cli.errors import UsageError
from skinlesion_cli.taxonomy import CLASS_INDEX

Guard = Literal["decision", "triage"]
GUARDS: tuple[Guard, ...] = ("decision", "triage")
# Probabilities nearer to 0 or 1 than this count as this: float32 tells them apart no better.
_LEAST = 1e-6


@dataclass(frozen=True)
class StoppingRule:
    """Settled images need no further look.

    Attributes
    ----------
    rule : whose decisions must not change. It was fitted on the mean over all looks, and stays as it was when
        thresholds are then calibrated on what this rule lets through.
    guard : what must not change: the `decision` (the class), or the `triage` level as well.
    reach : how far, in log odds, the looks yet to come may carry the mean; larger is more careful.
    n_views, weights : of the looks; see `decisions.adaptive.forward_passes.Looks`. With a single weight the whole ensemble is one
        voice, and a look is all networks at one view.
    """

    rule: DecisionRule
    reach: float
    n_views: int
    guard: Guard = "decision"
    weights: tuple[float, ...] = (1.0,)

    @cached_property
    def looks(self) -> Looks:
        """In their order."""
        return Looks(self.weights, self.n_views)

    def settled(self, probabilities: np.ndarray, n_looks: int) -> np.ndarray:
        """bool (n,): which estimates after the first `n_looks` looks, shape (n, 7), need no further look."""
        if n_looks >= self.looks.n:
            return np.ones(len(probabilities), dtype=bool)
        return margin(self.rule, probabilities, self.guard) > self.reach * self.looks.spreads[n_looks - 1]

    def to_json(self) -> dict[str, Any]:
        """In JSON types."""
        return {
            "rule": asdict(self.rule),
            "reach": self.reach,
            "n_views": self.n_views,
            "weights": list(self.weights),
            "guard": self.guard,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> StoppingRule:
        """What `to_json` wrote."""
        return cls(
            rule=DecisionRule.from_json(stored["rule"]),
            reach=float(stored["reach"]),
            n_views=int(stored["n_views"]),
            guard=stored["guard"],
            weights=tuple(float(weight) for weight in stored.get("weights", (1.0,))),
        )


def margin(rule: DecisionRule, ensemble_probabilities: np.ndarray, guard: Guard = "decision") -> np.ndarray:
    """How far each image is from another decision: float64 (n,), in log odds of calibrated probabilities, >= 0.

    The least distance to any boundary that matters as things stand: the thresholds of classes that would take
    precedence, the threshold that fired or else the second best class, and, where the triage level is guarded
    too, the malignant operating point and the minimum of the conformal set. In log odds, because there one look
    more moves a probability near 0 about as far as one near 1/2.
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
    if name not in (None, *GUARDS):
        raise UsageError(f"--adaptive {name!r} guards nothing", "Known: " + ", ".join(GUARDS))
    return cast(Guard | None, name)


def stopped_means(stopping: StoppingRule, voice_probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What prediction under the rule would decide on.

    Parameters
    ----------
    voice_probabilities : float32 (n, n_voices, n_views, 7), of each voice view by view, in view order.

    Returns
    -------
    float32 (n, 7), the estimate after the looks taken; int64 (n,), how many those are.
    """
    estimates = stopping.looks.estimates(voice_probabilities)
    n_images, n_looks = estimates.shape[:2]
    taken = np.full(n_images, n_looks, dtype=np.int64)
    waiting = np.arange(n_images)
    for look in range(1, n_looks):
        done = stopping.settled(estimates[waiting, look - 1], look)
        taken[waiting[done]] = look
        waiting = waiting[~done]
        if not len(waiting):
            break
    return estimates[np.arange(n_images), taken - 1], taken


def changed(
    rule: DecisionRule, first: np.ndarray, second: np.ndarray, guard: Guard = "decision"
) -> np.ndarray:
    """bool (n,): images of which what is guarded differs between `first` and `second`, both (n, 7)."""
    one, other = apply_rule(rule, first), apply_rule(rule, second)
    differing = one.decisions.decided != other.decisions.decided
    return differing if guard == "decision" else differing | (one.triage != other.triage)
