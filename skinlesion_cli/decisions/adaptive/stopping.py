"""Adaptive test-time augmentation: when have enough forward passes of an image been averaged?

After some of the steps (`decisions.adaptive.forward_passes`) the mean can still move, by about its standard
error. An image has converged when its probabilities are further from every boundary of the decision than
`margin_factor` times that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from skinlesion_cli.decisions.adaptive.forward_passes import Steps
from skinlesion_cli.decisions.thresholds import class_scores, decide, priority_order
from skinlesion_cli.decisions.triage import DecisionRule, RiskLevels, apply_rule, malignant_probability
from skinlesion_cli.errors import UsageError
from skinlesion_cli.taxonomy import MALIGNANT, ClassList

Protects = Literal["decision", "triage"]
PROTECTABLE: tuple[Protects, ...] = ("decision", "triage")
# Probabilities nearer to 0 or 1 than this count as this: float32 tells them apart no better.
_LEAST = 1e-6


@dataclass(frozen=True)
class StoppingRule:
    """Images that have converged need no further forward pass.

    Attributes
    ----------
    rule : whose decisions must not change. It was fitted on the mean over all steps, and stays as it was when
        thresholds are then calibrated on what this rule leaves.
    protects : what must not change: the `decision` (the class), or the `triage` level as well.
    margin_factor : how many standard errors, in log odds, an estimate has to be away from every boundary;
        larger is more careful.
    n_views, weights : of the steps; see `Steps`. With a single weight the whole ensemble is one member group,
        and a step is all networks at one view.
    """

    rule: DecisionRule
    margin_factor: float
    n_views: int
    protects: Protects = "decision"
    weights: tuple[float, ...] = (1.0,)

    @cached_property
    def steps(self) -> Steps:
        """In their order."""
        return Steps(self.weights, self.n_views)

    def converged(self, probabilities: np.ndarray, n_steps: int) -> np.ndarray:
        """bool (n,): which estimates after the first `n_steps` steps, shape (n, n_classes), need no further
        one.
        """
        if n_steps >= self.steps.n:
            return np.ones(len(probabilities), dtype=bool)
        needed = self.margin_factor * self.steps.spreads[n_steps - 1]
        result: np.ndarray = margin(self.rule, probabilities, self.protects) > needed
        return result

    def to_json(self) -> dict[str, Any]:
        """In JSON types."""
        return {
            "rule": self.rule.to_json(),
            "margin_factor": self.margin_factor,
            "n_views": self.n_views,
            "weights": list(self.weights),
            "protects": self.protects,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], classes: ClassList) -> StoppingRule:
        """What `to_json` wrote."""
        return cls(
            rule=DecisionRule.from_json(stored["rule"], classes),
            margin_factor=float(stored["margin_factor"]),
            n_views=int(stored["n_views"]),
            protects=stored["protects"],
            weights=tuple(float(weight) for weight in stored.get("weights", (1.0,))),
        )


def stored_step_shares(stored: Mapping[str, Any]) -> np.ndarray | None:
    """Shares of validation images that needed 1, 2, ... steps, of a stored `fit.StoppingFit`; they sum to 1.

    None where they were not stored.
    """
    shares = stored.get("step_shares")
    return np.array(shares, dtype=np.float64) / np.sum(shares) if shares else None


def margin(
    rule: DecisionRule, ensemble_probabilities: np.ndarray, protects: Protects = "decision"
) -> np.ndarray:
    """How far each image is from another decision: float64 (n,), in log odds of calibrated probabilities, >=
    0.

    The least distance to any boundary that matters as things stand: the thresholds of classes that would take
    precedence, the threshold that fired or else the second best class, and, where the triage level is
    protected too, the limits of the levels and what raises `routine` to `review`. In log odds, because there
    one more step moves a probability near 0 about as far as one near 1/2.
    """
    calibrated = np.asarray(rule.probability_calibration.apply(ensemble_probabilities), dtype=np.float64)
    odds = _log_odds(calibrated)
    ordered = np.sort(class_scores(np.maximum(calibrated, _LEAST), rule.class_offsets), axis=1)
    least: np.ndarray = ordered[:, -1] - ordered[:, -2]
    for name in reversed(priority_order(rule.thresholds, rule.priority, rule.classes)):
        index = rule.classes.index[name]
        distance = odds[:, index] - _log_odds(rule.thresholds[name])
        # A class that fires makes all that is less important than it irrelevant.
        least = np.where(distance > 0, distance, np.minimum(least, -distance))
    if protects == "decision" or not rule.classes.has_malignant:
        return least
    if rule.levels is None:
        return _former_triage_margin(rule, calibrated, odds, least)
    both: np.ndarray = np.minimum(least, _triage_margin(rule, rule.levels, calibrated, odds, least))
    return both


def _triage_margin(
    rule: DecisionRule, levels: RiskLevels, calibrated: np.ndarray, odds: np.ndarray, decision: np.ndarray
) -> np.ndarray:
    """Distance from another level. What raises `routine` to `review` matters only at low malignant
    probability.
    """
    risk = malignant_probability(calibrated, rule.classes).astype(np.float64)
    risk_odds = _log_odds(risk)
    to_refer = np.abs(risk_odds - _log_odds(levels.refer_above))
    to_routine = np.abs(risk_odds - _log_odds(levels.routine_at_most))
    raising = decision
    for name, threshold in rule.alarms.items():
        alarm = risk_odds if name == MALIGNANT else odds[:, rule.classes.index[name]]
        raising = np.minimum(raising, np.abs(alarm - _log_odds(threshold)))
    if rule.conformal_minimum:
        over = odds - _log_odds(np.asarray(rule.conformal_minimum))
        for side in (rule.classes.is_malignant, ~rule.classes.is_malignant):
            raising = np.minimum(raising, np.abs(over[:, side].max(axis=1)))
    below = np.minimum(to_routine, np.where(risk <= levels.routine_at_most, raising, np.inf))
    nearest: np.ndarray = np.where(risk > levels.refer_above, to_refer, np.minimum(to_refer, below))
    return nearest


def _former_triage_margin(
    rule: DecisionRule, calibrated: np.ndarray, odds: np.ndarray, least: np.ndarray
) -> np.ndarray:
    """The same under the triage of calibrations that were written before `RiskLevels`."""
    decided = decide(calibrated, rule.thresholds, rule.classes, rule.priority, rule.class_offsets).decided
    if rule.malignant_threshold is not None:
        malignant = malignant_probability(calibrated, rule.classes).astype(np.float64)
        away = np.abs(_log_odds(malignant) - _log_odds(rule.malignant_threshold))
        least = np.where(rule.classes.is_malignant[decided], least, np.minimum(least, away))
    if rule.conformal_minimum:
        over = odds - _log_odds(np.asarray(rule.conformal_minimum))
        holds_malignant = over[:, rule.classes.is_malignant].max(axis=1)
        holds_benign = over[:, ~rule.classes.is_malignant].max(axis=1)
        least = np.minimum(least, np.minimum(np.abs(holds_malignant), np.abs(holds_benign)))
    return least


def _log_odds(probability: np.ndarray | float) -> np.ndarray:
    clipped = np.clip(np.asarray(probability, dtype=np.float64), _LEAST, 1.0 - _LEAST)
    return np.log(clipped / (1.0 - clipped))


def parse_protects(name: str | None) -> Protects | None:
    """What `--adaptive` protects.

    Raises
    ------
    UsageError : neither `decision` nor `triage`.
    """
    if name not in (None, *PROTECTABLE):
        raise UsageError(f"--adaptive cannot protect {name!r}", "Choices: " + ", ".join(PROTECTABLE))
    return name


def stopped_means(stopping: StoppingRule, group_probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What prediction under the rule would decide on.

    Parameters
    ----------
    group_probabilities : float32 (n, n_groups, n_views, n_classes), of each member group view by view, in
        view order.

    Returns
    -------
    float32 (n, n_classes), the estimate after the steps taken; int64 (n,), how many those are.
    """
    estimates = stopping.steps.estimates(group_probabilities)
    n_images, n_steps = estimates.shape[:2]
    taken = np.full(n_images, n_steps, dtype=np.int64)
    waiting = np.arange(n_images)
    for step in range(1, n_steps):
        done = stopping.converged(estimates[waiting, step - 1], step)
        taken[waiting[done]] = step
        waiting = waiting[~done]
        if not len(waiting):
            break
    return estimates[np.arange(n_images), taken - 1], taken


def changed(
    rule: DecisionRule, first: np.ndarray, second: np.ndarray, protects: Protects = "decision"
) -> np.ndarray:
    """bool (n,): images of which what is protected differs between `first` and `second`, both (n,
    n_classes).
    """
    one, other = apply_rule(rule, first), apply_rule(rule, second)
    differing = one.decisions.decided != other.decisions.decided
    if protects == "triage" and one.triage is not None and other.triage is not None:
        differing = differing | (one.triage != other.triage)
    result: np.ndarray = differing
    return result
