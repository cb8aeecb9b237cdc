"""Fitting the stopping rule of adaptive test-time augmentation, and saying honestly what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from skinlesion_cli.decisions.adaptive.forward_passes import Looks
from skinlesion_cli.decisions.adaptive.stopping import Guard, StoppingRule, changed, margin, stopped_means
from skinlesion_cli.decisions.fit import fit_rule
from skinlesion_cli.decisions.settings import FitSettings
from skinlesion_cli.decisions.statistics.folds import grouped_folds
from skinlesion_cli.decisions.statistics.lesions import group
from skinlesion_cli.decisions.triage import DecisionRule, apply_rule
from skinlesion_cli.errors import DataError

MOST_CHANGED = 0.005
CONFIDENCE = 0.95
# From "never stop early" down; walked in this order, and the walk ends at the first that fails.
REACHES = tuple(float(reach) for reach in np.geomspace(20.0, 0.02, 100))


@dataclass(frozen=True)
class StoppingFit:
    """What the rule is worth.

    `changed_images` of `images` differ, in what is guarded, from all looks; `upper_bound` is the exact binomial
    bound on the share of lesions with such an image. `cross_fitted_share` is the share among images whose lesion
    the rule was not fitted on, `triage_changed_share` that of images with another decision or triage level.
    `mean_looks` of `n_looks` is the mean number of looks that an image needs, `look_shares` the share of images
    that need 1, 2, ... of them.
    """

    stopping: StoppingRule
    images: int
    lesions: int
    changed_images: int
    changed_lesions: int
    upper_bound: float
    cross_fitted_share: float | None
    triage_changed_share: float
    n_looks: int
    mean_looks: float
    look_shares: tuple[float, ...]
    decisions_changed_in_all: float | None = None


def upper_bound(hits: int, n: int, confidence: float = CONFIDENCE) -> float:
    """One-sided exact upper bound of a share (Clopper & Pearson, 1934)."""
    from scipy import stats

    return 1.0 if hits >= n else float(stats.beta.ppf(confidence, hits + 1, n - hits))


@dataclass(frozen=True)
class _Trajectories:
    """Every image's way through the looks: after each, its `margins` and whether what is guarded is then
    `differing` from what all looks say. Both (n_images, n_looks); neither depends on how careful a rule is."""

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

    def changed_by(self, reach: float) -> np.ndarray:
        """bool (n_images,): what a rule with this reach decides otherwise than all looks do."""
        settled = self.margins > reach * self.spreads
        settled[:, -1] = True
        return self.differing[np.arange(len(settled)), settled.argmax(axis=1)]


def _follow(
    rule: DecisionRule, looks: Looks, voice_probabilities: np.ndarray, lesion_ids: np.ndarray, guard: Guard
) -> _Trajectories:
    estimates = looks.estimates(voice_probabilities)
    steps = np.moveaxis(estimates, 1, 0)
    return _Trajectories(
        margins=np.stack([margin(rule, step, guard) for step in steps], axis=1),
        differing=np.stack([changed(rule, steps[-1], step, guard) for step in steps], axis=1),
        spreads=looks.spreads,
        lesion_ids=lesion_ids,
    )


def fit_stopping(
    rule: DecisionRule,
    voice_probabilities: np.ndarray,
    labels: np.ndarray,
    lesion_ids: np.ndarray,
    weights: Sequence[float] = (1.0,),
    guard: Guard = "decision",
    most_changed: float = MOST_CHANGED,
) -> StoppingFit:
    """The least careful rule of which it is certain enough that it changes few decisions.

    Candidates are tested from the most careful down, each by the exact bound, until one fails: so the
    confidence holds for the one that is kept, without a correction for the number tested (fixed sequence
    testing; Angelopoulos et al., 2021, arXiv:2110.01052). Images of one lesion are no independent evidence: a
    lesion counts as changed if any of its images does.

    Parameters
    ----------
    voice_probabilities : float32 (n_images, n_voices, n_views, 7), in view order.
    weights : of the voices.

    Raises
    ------
    DataError : too few lesions to be certain of anything (598 for 0.5 %).
    """
    looks = Looks(tuple(weights), voice_probabilities.shape[2])
    ways = _follow(rule, looks, voice_probabilities, lesion_ids, guard)
    reach = _least_careful(ways, most_changed)
    stopping = StoppingRule(rule, reach, looks.n_views, guard, looks.weights)
    estimates, taken = stopped_means(stopping, voice_probabilities)
    full = looks.estimates(voice_probabilities)[:, -1]
    differing = changed(rule, full, estimates, guard)
    lesions = group(lesion_ids)
    hits = len(np.unique(lesions.codes[differing]))
    return StoppingFit(
        stopping=stopping,
        images=len(full),
        lesions=lesions.n,
        changed_images=int(differing.sum()),
        changed_lesions=hits,
        upper_bound=upper_bound(hits, lesions.n),
        cross_fitted_share=_cross_fitted(ways, labels, most_changed),
        triage_changed_share=float(changed(rule, full, estimates, "triage").mean()),
        n_looks=looks.n,
        mean_looks=float(taken.mean()),
        look_shares=tuple(float((taken == n).mean()) for n in range(1, looks.n + 1)),
    )


def _least_careful(ways: _Trajectories, most_changed: float) -> float:
    lesions = group(ways.lesion_ids)
    found = None
    for reach in REACHES:
        hits = len(np.unique(lesions.codes[ways.changed_by(reach)]))
        if upper_bound(hits, lesions.n) > most_changed:
            break
        found = reach
    if found is None:
        needed = int(np.ceil(np.log(1 - CONFIDENCE) / np.log(1 - most_changed)))
        raise DataError(
            f"{lesions.n} validation lesions are too few to stop early: that at most {most_changed:.1%} of the "
            f"decisions change takes at least {needed} lesions",
            "Use --tta d4, or bring more validation images.",
        )
    return found


def _cross_fitted(ways: _Trajectories, labels: np.ndarray, most_changed: float) -> float | None:
    """Share of images decided otherwise by rules fitted without their lesion; None where folds are too small."""
    differing = np.zeros(len(labels), dtype=bool)
    for fit_on, held_out in grouped_folds(labels, ways.lesion_ids):
        try:
            reach = _least_careful(ways.at(fit_on), most_changed)
        except DataError:
            return None
        differing[held_out] = ways.at(held_out).changed_by(reach)
    return float(differing.mean())


def fit_adaptive(
    labels: np.ndarray,
    voice_probabilities: np.ndarray,
    weights: Sequence[float],
    lesion_ids: np.ndarray,
    settings: FitSettings,
    guard: Guard,
) -> tuple[StoppingFit, np.ndarray]:
    """The stopping rule for these settings, and the probabilities that it leaves to decide on.

    It guards a decision rule that is fitted on all looks. The rule in use is to be fitted on what the stopping
    leaves, float32 (n_images, 7), so that thresholds are calibrated under the very looks of prediction;
    `decisions_changed_in_all` counts that change too.
    """
    full = Looks(tuple(weights), voice_probabilities.shape[2]).estimates(voice_probabilities)[:, -1]
    guarded = fit_rule(labels, full, lesion_ids, settings).rule
    found = fit_stopping(guarded, voice_probabilities, labels, lesion_ids, weights, guard)
    probabilities, _ = stopped_means(found.stopping, voice_probabilities)
    in_use = fit_rule(labels, probabilities, lesion_ids, settings).rule
    before = apply_rule(guarded, full).decisions.decided
    after = apply_rule(in_use, probabilities).decisions.decided
    return replace(found, decisions_changed_in_all=float((before != after).mean())), probabilities
