"""Thresholds whose guarantees hold on new images: the final decision is bounded, lesion by lesion.

Classes are taken in their order of priority. For one class, higher ones already have their threshold, and

- a lesion of the class is caught where p > θ and no higher class takes it (where no lower class can take it,
  the argmax counts too): the highest θ that keeps the sensitivity is an order statistic of its lesions;
- a lesion of another class is a false call where p > θ or the argmax says so: the lowest θ that keeps the
  specificity is an order statistic of those.

Both sets of thresholds are nested, so that *any* θ between the two ends keeps both guarantees: the one of the
best balanced accuracy is taken, and this choice costs no confidence. Nor does the order: a class's threshold
never looks at the lesions of a class that comes after it, so to these it is a fixed rule. What has to be paid
is that there are several guarantees: they share the doubt 1 - confidence, and hold together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from skinlesion_cli.decisions.policies.base import Guarantee, PolicyResult
from skinlesion_cli.decisions.settings import DEFAULT_TARGETS, FitSettings, GuaranteeSettings, Target
from skinlesion_cli.decisions.statistics import bounds
from skinlesion_cli.decisions.statistics.lesions import Lesions, group, votes
from skinlesion_cli.decisions.statistics.metrics import checked
from skinlesion_cli.decisions.thresholds import DEFAULT_PRIORITY, priority_order
from skinlesion_cli.errors import UsageError
from skinlesion_cli.taxonomy import N_CLASSES

# Share of the doubt that goes to the specificity floors: they rest on thousands of lesions and need little.
_FLOOR_SHARE = 0.2
NEVER = 1.0  # p > 1 does not happen: such a threshold leaves the argmax alone


@dataclass(frozen=True)
class GuaranteedSearch:
    """Thresholds by class, in the order of priority, and what is guaranteed of each."""

    thresholds: dict[str, float]
    guarantees: tuple[Guarantee, ...]


def guaranteed_thresholds(
    labels: np.ndarray,
    probabilities: np.ndarray,
    lesion_ids: np.ndarray,
    targets: Sequence[Target] = DEFAULT_TARGETS,
    priority: Sequence[str] = DEFAULT_PRIORITY,
    settings: GuaranteeSettings | None = None,
) -> GuaranteedSearch:
    """Find thresholds that keep the targets on new images, or say what can be kept.

    Parameters
    ----------
    labels : int64 (n_images,). probabilities : (n_images, 7). lesion_ids : (n_images,).

    Source of the bounds: `bounds.allowed_misses`; of choosing freely within nested sets, Angelopoulos et al.,
    2021 (learn then test, arXiv:2110.01052), fixed sequence testing.
    """
    chosen = settings or GuaranteeSettings()
    values, labels = checked(probabilities), np.asarray(labels)
    lesions = group(lesion_ids, labels)
    by_name = {target.class_name: target for target in targets}
    if len(by_name) != len(targets):
        raise UsageError("a class has two targets", "Give each class one target.")
    order = [by_name[name] for name in priority_order(dict.fromkeys(by_name, 0.0), priority)]
    state = _State(values, labels, lesions, values.argmax(axis=1), np.zeros(len(values), bool))
    doubt = (1.0 - chosen.confidence) / max(len(order), 1)
    thresholds, guarantees = {}, []
    budget = chosen.max_bacc_loss
    for position, target in enumerate(order):
        later = [other.class_index for other in order[position + 1 :]]
        share = None if budget is None else budget / (len(order) - position)
        guarantee, loss = _one_class(state, target, later, doubt, share, chosen.horizon)
        budget = None if budget is None else max(budget - loss, 0.0)
        thresholds[target.class_name] = guarantee.threshold
        guarantees.append(guarantee)
        state = state.with_threshold(target.class_index, guarantee.threshold)
    return GuaranteedSearch(thresholds, tuple(guarantees))


@dataclass(frozen=True)
class _State:
    """What is known so far: the argmax, and which images a higher class's threshold has `taken` from it."""

    values: np.ndarray
    labels: np.ndarray
    lesions: Lesions
    argmax: np.ndarray
    taken: np.ndarray

    def with_threshold(self, index: int, theta: float) -> _State:
        return replace(self, taken=self.taken | (self.values[:, index] > theta))


def _one_class(
    state: _State,
    target: Target,
    later: list[int],
    doubt: float,
    max_loss: float | None,
    horizon: int | None,
) -> tuple[Guarantee, float]:
    """The class's guarantee, and what its threshold costs the other classes in balanced accuracy."""
    index = target.class_index
    has_floor = target.specificity is not None
    sure = 1.0 - doubt * (1.0 - _FLOOR_SHARE if has_floor else 1.0)
    sure_floor = 1.0 - doubt * _FLOOR_SHARE
    positive = state.labels == index
    score = np.where(state.taken, -np.inf, state.values[:, index])
    by_argmax = ~state.taken & (state.argmax == index)
    # A lower class could still take what only the argmax catches.
    caught = votes(np.where(by_argmax & (not later), np.inf, score)[positive], state.lesions.codes[positive])
    called = votes(np.where(by_argmax, np.inf, score)[~positive], state.lesions.codes[~positive], upper=True)
    n = len(caught)
    allowed = bounds.allowed_misses(n, target.sensitivity, sure, horizon)
    ceiling = np.sort(caught)[allowed] if allowed >= 0 else -np.inf  # θ must stay below it
    floor, floor_guaranteed = _floor(called, target.specificity, sure_floor, horizon)
    curve = _bacc_curve(state, index, later)
    lowest = max(floor, curve.lowest_within(max_loss))
    theta = curve.best(lowest, ceiling)
    granted = theta is not None and floor_guaranteed
    if theta is None:
        theta = curve.nearest(lowest) if n else NEVER
    missed = int((caught <= theta).sum())
    guarantee = Guarantee(
        class_name=target.class_name,
        threshold=theta,
        granted=granted,
        sensitivity=target.sensitivity,
        specificity=target.specificity,
        target_sensitivity=target.sensitivity,
        target_specificity=target.specificity,
        confidence=sure,
        lesions=n,
        missed=missed,
        more_lesions=0,
        reason="",
    )
    if not granted:
        guarantee = _refusal(guarantee, called, sure, sure_floor, floor_guaranteed, floor >= lowest, horizon)
    return guarantee, curve.loss_at(theta)


def _floor(
    called: np.ndarray, specificity: float | None, confidence: float, horizon: int | None
) -> tuple[float, bool]:
    """The lowest θ that keeps the specificity, and whether one does."""
    if specificity is None:
        return -np.inf, True
    allowed = bounds.allowed_misses(len(called), specificity, confidence, horizon)
    if allowed < 0:
        return NEVER, False
    lowest = float(np.sort(called)[::-1][allowed])
    return (NEVER, False) if np.isposinf(lowest) else (lowest, True)


def _refusal(
    guarantee: Guarantee,
    called: np.ndarray,
    confidence: float,
    floor_confidence: float,
    floor_guaranteed: bool,
    floor_binds: bool,
    horizon: int | None,
) -> Guarantee:
    n, missed = guarantee.lesions, guarantee.missed
    best = bounds.guaranteed_share(n, missed, confidence, horizon)
    specificity = guarantee.target_specificity
    if not floor_guaranteed:
        false_calls = int((called > guarantee.threshold).sum())
        specificity = bounds.guaranteed_share(len(called), false_calls, floor_confidence, horizon) or None
    miss_rate = missed / n if n else 0.0
    needed = bounds.lesions_needed(miss_rate, guarantee.target_sensitivity, confidence)
    if n == 0:
        reason = "no lesion of this class: nothing can be guaranteed, the argmax stands for it"
    elif not floor_guaranteed:
        needed = None
        reason = "the specificity floor cannot be guaranteed even without a threshold"
    elif floor_binds and guarantee.target_specificity is not None:
        reason = "the sensitivity cannot be guaranteed together with the specificity floor"
    else:
        reason = "the sensitivity cannot be guaranteed within the balanced accuracy that it may cost"
    return replace(
        guarantee,
        sensitivity=best or None,
        specificity=specificity,
        more_lesions=None if needed is None else max(needed - n, 1),
        reason=reason,
    )


@dataclass(frozen=True)
class _Curve:
    """Balanced accuracy by threshold. All arrays ascend with θ; `values` are the scores in between.

    Candidates lie half way between neighbouring scores (and at 1), so that rounding moves no decision.
    """

    thetas: np.ndarray
    bacc: np.ndarray
    loss: np.ndarray

    def lowest_within(self, max_loss: float | None) -> float:
        """The lowest θ that costs the other classes no more than this."""
        if max_loss is None:
            return -np.inf
        return float(self.thetas[np.flatnonzero(self.loss <= max_loss + 1e-12)[0]])

    def loss_at(self, theta: float) -> float:
        """What this θ costs the other classes."""
        return float(self.loss[np.searchsorted(self.thetas, theta)])

    def best(self, lowest: float, ceiling: float) -> float | None:
        """The θ of the best balanced accuracy in [lowest, ceiling), the largest of equals."""
        fits = np.flatnonzero((self.thetas >= lowest) & (self.thetas < ceiling))
        if not fits.size:
            return None
        among = self.bacc[fits]
        return float(self.thetas[fits[np.flatnonzero(among >= among.max() - 1e-12)[-1]]])

    def nearest(self, lowest: float) -> float:
        """The lowest candidate that is not below `lowest`."""
        return float(self.thetas[np.searchsorted(self.thetas, lowest)])


def _bacc_curve(state: _State, index: int, later: list[int]) -> _Curve:
    """Every threshold of one class at once: images join it one by one, from the surest down."""
    free = np.flatnonzero(~state.taken)
    free = free[np.argsort(-state.values[free, index], kind="stable")]
    labels, scores = state.labels[free], state.values[free, index]
    counts = np.bincount(state.labels, minlength=N_CLASSES)
    counted = (counts > 0) & ~np.isin(np.arange(N_CLASSES), later)
    worth = np.where(counted, 1.0 / np.maximum(counts, 1), 0.0) / max(counted.sum(), 1)
    was_right = state.argmax[free] == labels
    gain = np.cumsum(np.where((labels == index) & ~was_right, worth[labels], 0.0))
    loss = np.cumsum(np.where((labels != index) & was_right, worth[labels], 0.0))
    # A candidate below every run of equal scores; above all of them, 1.
    below = np.r_[scores[1:], 0.0] if len(scores) else scores
    ends = np.flatnonzero(scores > below)  # a run of zeros never fires
    middles = (scores[ends] + below[ends]) / 2
    thetas = np.r_[NEVER, middles][::-1]
    gains, losses = np.r_[0.0, gain[ends]][::-1], np.r_[0.0, loss[ends]][::-1]
    return _Curve(thetas, gains - losses, losses)


def find(
    labels: np.ndarray, probabilities: np.ndarray, lesion_ids: np.ndarray, settings: FitSettings
) -> PolicyResult:
    """The policy `guaranteed`."""
    search = guaranteed_thresholds(
        labels, probabilities, lesion_ids, settings.targets, settings.priority, settings.guarantee
    )
    return PolicyResult(search.thresholds, guarantees=search.guarantees)
