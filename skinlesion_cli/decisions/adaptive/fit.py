"""Fitting the stopping rule of adaptive test-time augmentation, with what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from skinlesion_cli.decisions.adaptive.forward_passes import Steps
from skinlesion_cli.decisions.adaptive.stopping import Protects, StoppingRule, changed, margin, stopped_means
from skinlesion_cli.decisions.fit import fit_rule
from skinlesion_cli.decisions.settings import FitSettings
from skinlesion_cli.decisions.statistics.folds import grouped_folds
from skinlesion_cli.decisions.statistics.lesions import group
from skinlesion_cli.decisions.triage import DecisionRule, apply_rule
from skinlesion_cli.errors import DataError
from skinlesion_cli.result import percent
from skinlesion_cli.taxonomy import ClassList

MOST_CHANGED = 0.005
CONFIDENCE = 0.95
# From "never stop early" down; tested in this order, and the search ends at the first that fails.
MARGIN_FACTORS = tuple(float(factor) for factor in np.geomspace(20.0, 0.02, 100))


@dataclass(frozen=True)
class StoppingFit:
    """What the rule is worth.

    `changed_images` of `images` differ, in what is protected, from all steps; `upper_bound` is the exact
    binomial bound on the share of lesions with such an image. `cross_fitted_share` is the share among images
    whose lesion the rule was not fitted on, `triage_changed_share` that of images with another decision or
    triage level. `mean_steps` of `n_steps` is the mean number of steps that an image needs, `step_shares` the
    share of images that need 1, 2, ... of them.
    """

    stopping: StoppingRule
    images: int
    lesions: int
    changed_images: int
    changed_lesions: int
    upper_bound: float
    cross_fitted_share: float | None
    triage_changed_share: float
    n_steps: int
    mean_steps: float
    step_shares: tuple[float, ...]
    decisions_changed_in_all: float | None = None


def upper_bound(hits: int, n: int, confidence: float = CONFIDENCE) -> float:
    """One-sided exact upper bound of a share (Clopper & Pearson, 1934)."""
    from scipy import stats

    return 1.0 if hits >= n else float(stats.beta.ppf(confidence, hits + 1, n - hits))


def fewest_lesions(most_changed: float = MOST_CHANGED, confidence: float = CONFIDENCE) -> int:
    """Lesions that show, if none of them changes, that at most this share of all does:
    (1 - share)^n <= 1 - confidence.
    """
    return int(np.ceil(np.log(1 - confidence) / np.log(1 - most_changed)))


@dataclass(frozen=True)
class _Trajectories:
    """Every image after each of the steps: its `margins`,
    and whether what is protected is then `differing` from
    the result of all steps. Both (n_images, n_steps); neither depends on how careful a rule is."""

    margins: np.ndarray
    differing: np.ndarray
    spreads: np.ndarray
    lesion_ids: np.ndarray

    def at(self, rows: np.ndarray) -> _Trajectories:
        return replace(
            self,
            margins=self.margins[rows],
            differing=self.differing[rows],
            lesion_ids=self.lesion_ids[rows],
        )

    def changed_by(self, margin_factor: float) -> np.ndarray:
        """bool (n_images,): what a rule with this margin factor decides otherwise than all steps do."""
        converged = self.margins > margin_factor * self.spreads
        converged[:, -1] = True
        result: np.ndarray = self.differing[np.arange(len(converged)), converged.argmax(axis=1)]
        return result


def _follow(
    rule: DecisionRule,
    steps: Steps,
    group_probabilities: np.ndarray,
    lesion_ids: np.ndarray,
    protects: Protects,
) -> _Trajectories:
    estimates = np.moveaxis(steps.estimates(group_probabilities), 1, 0)
    return _Trajectories(
        margins=np.stack([margin(rule, after, protects) for after in estimates], axis=1),
        differing=np.stack([changed(rule, estimates[-1], after, protects) for after in estimates], axis=1),
        spreads=steps.spreads,
        lesion_ids=lesion_ids,
    )


def fit_stopping(
    rule: DecisionRule,
    group_probabilities: np.ndarray,
    labels: np.ndarray,
    lesion_ids: np.ndarray,
    weights: Sequence[float] = (1.0,),
    protects: Protects = "decision",
    most_changed: float = MOST_CHANGED,
) -> StoppingFit:
    """The least careful rule of which it is certain enough that it changes few decisions.

    Candidates are tested from the most careful down, each by the exact bound, until one fails: so the
    confidence holds for the one that is kept, without a correction for the number tested (fixed sequence
    testing; Angelopoulos et al., 2021, arXiv:2110.01052). Images of one lesion are no independent evidence: a
    lesion counts as changed if any of its images does.

    Parameters
    ----------
    group_probabilities : float32 (n_images, n_groups, n_views, n_classes), in view order.
    weights : of the member groups.

    Raises
    ------
    DataError : too few lesions to be certain of anything (598 for 0.5 %).
    """
    steps = Steps(tuple(weights), group_probabilities.shape[2])
    trajectories = _follow(rule, steps, group_probabilities, lesion_ids, protects)
    margin_factor = _least_careful(trajectories, most_changed)
    stopping = StoppingRule(rule, margin_factor, steps.n_views, protects, steps.weights)
    estimates, taken = stopped_means(stopping, group_probabilities)
    full = steps.estimates(group_probabilities)[:, -1]
    differing = changed(rule, full, estimates, protects)
    lesions = group(lesion_ids)
    hits = len(np.unique(lesions.codes[differing]))
    return StoppingFit(
        stopping=stopping,
        images=len(full),
        lesions=lesions.n,
        changed_images=int(differing.sum()),
        changed_lesions=hits,
        upper_bound=upper_bound(hits, lesions.n),
        cross_fitted_share=_cross_fitted(trajectories, labels, most_changed),
        triage_changed_share=float(changed(rule, full, estimates, "triage").mean()),
        n_steps=steps.n,
        mean_steps=float(taken.mean()),
        step_shares=tuple(float((taken == n).mean()) for n in range(1, steps.n + 1)),
    )


def _least_careful(trajectories: _Trajectories, most_changed: float) -> float:
    lesions = group(trajectories.lesion_ids)
    least = None
    for margin_factor in MARGIN_FACTORS:
        hits = len(np.unique(lesions.codes[trajectories.changed_by(margin_factor)]))
        if upper_bound(hits, lesions.n) > most_changed:
            break
        least = margin_factor
    if least is None:
        needed = fewest_lesions(most_changed)
        raise DataError(
            f"{lesions.n} validation lesions are too few to stop early: to show that at most "
            f"{percent(most_changed)} of "
            f"the decisions change, at least {needed} lesions are needed",
            "Use --tta d4, or add more validation images.",
        )
    return least


def _cross_fitted(trajectories: _Trajectories, labels: np.ndarray, most_changed: float) -> float | None:
    """Share of images decided otherwise by rules fitted without their lesion;
    None where folds are too small.
    """
    differing = np.zeros(len(labels), dtype=bool)
    for fit_on, held_out in grouped_folds(labels, trajectories.lesion_ids):
        try:
            margin_factor = _least_careful(trajectories.at(fit_on), most_changed)
        except DataError:
            return None
        differing[held_out] = trajectories.at(held_out).changed_by(margin_factor)
    return float(differing.mean())


def fit_adaptive(
    labels: np.ndarray,
    group_probabilities: np.ndarray,
    weights: Sequence[float],
    lesion_ids: np.ndarray,
    settings: FitSettings,
    protects: Protects,
    classes: ClassList,
) -> tuple[StoppingFit, np.ndarray]:
    """The stopping rule for these settings, and the probabilities that it leaves to decide on.

    It protects the decisions of a rule that is fitted on all steps. The rule in use is to be fitted on what
    the stopping leaves, float32 (n_images, n_classes), so that thresholds are calibrated on the forward
    passes of prediction; `decisions_changed_in_all` counts that change too.
    """
    full = Steps(tuple(weights), group_probabilities.shape[2]).estimates(group_probabilities)[:, -1]
    protected = fit_rule(labels, full, lesion_ids, settings, classes).rule
    fitted = fit_stopping(protected, group_probabilities, labels, lesion_ids, weights, protects)
    probabilities, _ = stopped_means(fitted.stopping, group_probabilities)
    in_use = fit_rule(labels, probabilities, lesion_ids, settings, classes).rule
    before = apply_rule(protected, full).decisions.decided
    after = apply_rule(in_use, probabilities).decisions.decided
    return replace(fitted, decisions_changed_in_all=float((before != after).mean())), probabilities
