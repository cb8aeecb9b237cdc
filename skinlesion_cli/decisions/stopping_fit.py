"""Fitting the stopping rule of adaptive test-time augmentation, and saying honestly what it costs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from skinlesion_cli.decisions.fit import FitSettings, fit_rule
from skinlesion_cli.decisions.folds import grouped_folds
from skinlesion_cli.decisions.lesions import group
from skinlesion_cli.decisions.stopping import Guard, StoppingRule, changed, stopped_means
from skinlesion_cli.decisions.triage import DecisionRule, apply_rule
from skinlesion_cli.errors import DataError

MOST_CHANGED = 0.005
CONFIDENCE = 0.95
# From "never stop early" down; walked in this order, and the walk ends at the first that fails.
REACHES = tuple(float(reach) for reach in np.geomspace(20.0, 0.02, 100))


@dataclass(frozen=True)
class StoppingFit:
    """What the rule is worth.

    `changed_images` of `images` differ, in what is guarded, from all views; `upper_bound` is the exact binomial
    bound on the share of lesions with such an image. `cross_fitted_share` is the share among images whose lesion
    the rule was not fitted on, `triage_changed_share` that of images with another decision or triage level.
    `mean_views` is the mean number of views that an image needs, `view_shares` the share of images that need
    1, 2, ... of them.
    """

    stopping: StoppingRule
    images: int
    lesions: int
    changed_images: int
    changed_lesions: int
    upper_bound: float
    cross_fitted_share: float | None
    triage_changed_share: float
    mean_views: float
    view_shares: tuple[float, ...]
    decisions_changed_in_all: float | None = None


def upper_bound(hits: int, n: int, confidence: float = CONFIDENCE) -> float:
    """One-sided exact upper bound of a share (Clopper & Pearson, 1934)."""
    from scipy import stats

    return 1.0 if hits >= n else float(stats.beta.ppf(confidence, hits + 1, n - hits))


def fit_stopping(
    rule: DecisionRule,
    view_probabilities: np.ndarray,
    labels: np.ndarray,
    lesion_ids: np.ndarray,
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
    view_probabilities : float32 (n_images, n_views, 7), of the ensemble, in view order.

    Raises
    ------
    DataError : too few lesions to be certain of anything (598 for 0.5 %).
    """
    stopping = _least_careful(rule, view_probabilities, lesion_ids, guard, most_changed)
    full = _full(view_probabilities)
    means, views = stopped_means(stopping, view_probabilities)
    differing = changed(rule, full, means, guard)
    lesions = group(lesion_ids)
    hits = len(np.unique(lesions.codes[differing]))
    return StoppingFit(
        stopping=stopping,
        images=len(full),
        lesions=lesions.n,
        changed_images=int(differing.sum()),
        changed_lesions=hits,
        upper_bound=upper_bound(hits, lesions.n),
        cross_fitted_share=_cross_fitted(rule, view_probabilities, labels, lesion_ids, guard, most_changed),
        triage_changed_share=float(changed(rule, full, means, "triage").mean()),
        mean_views=float(views.mean()),
        view_shares=tuple(float((views == n).mean()) for n in range(1, view_probabilities.shape[1] + 1)),
    )


def _full(view_probabilities: np.ndarray) -> np.ndarray:
    return view_probabilities.mean(axis=1, dtype=np.float64).astype(np.float32)


def _least_careful(
    rule: DecisionRule,
    view_probabilities: np.ndarray,
    lesion_ids: np.ndarray,
    guard: Guard,
    most_changed: float,
) -> StoppingRule:
    lesions, full = group(lesion_ids), _full(view_probabilities)
    found = None
    for reach in REACHES:
        candidate = StoppingRule(rule, reach, view_probabilities.shape[1], guard)
        differing = changed(rule, full, stopped_means(candidate, view_probabilities)[0], guard)
        hits = len(np.unique(lesions.codes[differing]))
        if upper_bound(hits, lesions.n) > most_changed:
            break
        found = candidate
    if found is None:
        needed = int(np.ceil(np.log(1 - CONFIDENCE) / np.log(1 - most_changed)))
        raise DataError(
            f"{lesions.n} validation lesions are too few to stop early: that at most {most_changed:.1%} of the "
            f"decisions change takes at least {needed} lesions",
            "Use --tta d4, or bring more validation images.",
        )
    return found


def _cross_fitted(
    rule: DecisionRule,
    view_probabilities: np.ndarray,
    labels: np.ndarray,
    lesion_ids: np.ndarray,
    guard: Guard,
    most_changed: float,
) -> float | None:
    """Share of images decided otherwise by rules fitted without their lesion; None where folds are too small."""
    differing = np.zeros(len(labels), dtype=bool)
    full = _full(view_probabilities)
    for fit_on, held_out in grouped_folds(labels, lesion_ids):
        try:
            stopping = _least_careful(
                rule, view_probabilities[fit_on], lesion_ids[fit_on], guard, most_changed
            )
        except DataError:
            return None
        means, _ = stopped_means(stopping, view_probabilities[held_out])
        differing[held_out] = changed(rule, full[held_out], means, guard)
    return float(differing.mean())


def fit_adaptive(
    labels: np.ndarray,
    view_probabilities: np.ndarray,
    lesion_ids: np.ndarray,
    settings: FitSettings,
    guard: Guard,
) -> tuple[StoppingFit, np.ndarray]:
    """The stopping rule for these settings, and the probabilities that it leaves to decide on.

    It guards a decision rule that is fitted on all views. The rule in use is to be fitted on what the stopping
    leaves, float32 (n_images, 7), so that thresholds are calibrated under the very views of prediction;
    `decisions_changed_in_all` counts that change too.
    """
    full = _full(view_probabilities)
    guarded = fit_rule(labels, full, lesion_ids, settings).rule
    found = fit_stopping(guarded, view_probabilities, labels, lesion_ids, guard)
    probabilities, _ = stopped_means(found.stopping, view_probabilities)
    in_use = fit_rule(labels, probabilities, lesion_ids, settings).rule
    before = apply_rule(guarded, full).decisions.decided
    after = apply_rule(in_use, probabilities).decisions.decided
    return replace(found, decisions_changed_in_all=float((before != after).mean())), probabilities
