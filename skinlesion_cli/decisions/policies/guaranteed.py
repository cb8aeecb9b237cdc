"""Alarms whose sensitivity holds on new images, bounded lesion by lesion and photograph by photograph.

An alarm fires where a probability exceeds its threshold: that of one class, or that of malignancy. It does
not change the decided class, so each alarm stands alone. For each,

- a lesion of the class is caught where the alarm fires on more than half of its photographs: the highest
  threshold that keeps the sensitivity is an order statistic of its lesions, and it is the one taken, since a
  higher one means fewer false alarms;
- a lesion of another class is a false alarm where it fires on half of its photographs or more: the lowest
  threshold that keeps a wanted specificity is an order statistic of those.

All thresholds between the two ends keep both, so that taking one of them costs no confidence. What has to be
paid is that there are several guarantees: they share the doubt 1 - confidence, and hold together.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from skinlesion_cli.decisions.policies.base import Guarantee, PolicyResult
from skinlesion_cli.decisions.policies.published import PUBLISHED_TARGETS
from skinlesion_cli.decisions.settings import FitSettings, Target
from skinlesion_cli.decisions.statistics import bounds, lesion_means
from skinlesion_cli.decisions.statistics.lesions import group, votes
from skinlesion_cli.decisions.statistics.metrics import checked
from skinlesion_cli.decisions.triage import alarm_scores, malignant_probability
from skinlesion_cli.errors import UsageError
from skinlesion_cli.taxonomy import MALIGNANT, ClassList

NEVER = 1.0  # p > 1 does not happen: such an alarm never fires
# Shares of an alarm's doubt: per lesion, per photograph, and for the specificity floor, which rests on
# thousands of lesions and needs little.
_WITHOUT_FLOOR, _WITH_FLOOR = (0.5, 0.5, 0.0), (0.4, 0.4, 0.2)


def default_targets(classes: ClassList) -> tuple[Target, ...]:
    """The published sensitivity of the class that matters most, where the list has it and calls it
    malignant.
    """
    first = PUBLISHED_TARGETS[0]
    return (
        (Target(first.class_name, first.sensitivity),) if first.class_name in classes.malignant_codes else ()
    )


def check(settings: FitSettings, classes: ClassList) -> None:
    """An alarm is on a target that is named, or on malignancy."""
    if not settings.targets and not classes.has_malignant:
        raise UsageError(
            f"no class of {classes.described} is malignant: there is nothing to raise an alarm for",
            "Name the classes that need one with --target, or use --policy none.",
        )


def find(
    labels: np.ndarray,
    probabilities: np.ndarray,
    lesion_ids: np.ndarray,
    settings: FitSettings,
    classes: ClassList,
) -> PolicyResult:
    """The policy `guaranteed`: an alarm for each target, and one on the malignant probability."""
    targets = default_targets(classes) if settings.targets is None else settings.targets
    names = [target.class_name for target in targets]
    if MALIGNANT not in names and classes.has_malignant:
        targets = (*targets, Target(MALIGNANT, settings.malignant_sensitivity))
    if len(set(names)) != len(names):
        raise UsageError("a class has two targets", "Give each class one target.")
    values, labels = checked(probabilities), np.asarray(labels)
    codes = group(lesion_ids, labels).codes
    malignant = malignant_probability(values, classes)
    guarantees = tuple(
        guaranteed_alarm(
            target,
            alarm_scores(values, malignant, target.class_name, classes),
            classes.is_malignant[labels]
            if target.class_name == MALIGNANT
            else labels == classes.index[target.class_name],
            codes,
            settings.each_confidence(len(targets)),
            settings.guarantee.horizon,
        )
        for target in targets
    )
    return PolicyResult(alarms={g.class_name: g.threshold for g in guarantees}, guarantees=guarantees)


def guaranteed_alarm(
    target: Target,
    scores: np.ndarray,
    positive: np.ndarray,
    codes: np.ndarray,
    confidence: float,
    horizon: int | None = None,
) -> Guarantee:
    """The highest threshold that keeps the target on new images, or what can be kept.

    Parameters
    ----------
    scores : (n_images,), what the alarm looks at. positive : bool (n_images,). codes : the lesion of each
    image.
    confidence : that all that is said of this alarm holds together.
    """
    sensitivity, specificity = target.sensitivity, target.specificity
    by_lesion, by_photograph, by_floor = _WITHOUT_FLOOR if specificity is None else _WITH_FLOOR
    sure, sure_photograph, sure_floor = (
        1.0 - (1.0 - confidence) * share for share in (by_lesion, by_photograph, by_floor)
    )
    caught = np.sort(votes(scores[positive], codes[positive]))
    called = np.sort(votes(scores[~positive], codes[~positive], upper=True))[::-1]
    n = len(caught)
    floor, floor_kept = -np.inf, True
    if specificity is not None:
        false_alarms = bounds.allowed_misses(len(called), specificity, sure_floor)
        floor, floor_kept = (
            (called[false_alarms], True) if 0 <= false_alarms < len(called) else (NEVER, False)
        )
    allowed = bounds.allowed_misses(n, sensitivity, sure)
    threshold = NEVER if n == 0 else _below(caught[max(allowed, 0)], scores)
    granted = allowed >= 0 and floor_kept and threshold >= floor
    if n:
        threshold = max(threshold, float(floor))
    missed = int((caught <= threshold).sum())
    judged = n if horizon is None else horizon
    fires = lesion_means.mean_by_lesion((scores > threshold)[positive], codes[positive])
    guarantee = Guarantee(
        class_name=target.class_name,
        threshold=threshold,
        granted=granted,
        sensitivity=sensitivity if granted else bounds.guaranteed_share(n, missed, sure) or None,
        next_sensitivity=(bounds.guaranteed_share(n, missed, sure, judged) or None) if judged else None,
        next_lesions=judged,
        photograph_sensitivity=lesion_means.mean_lower_bound(fires, sure_photograph) or None,
        specificity=specificity,
        target_sensitivity=sensitivity,
        target_specificity=specificity,
        confidence=confidence,
        lesions=n,
        missed=missed,
        more_lesions=0,
        reason="",
    )
    if granted:
        return guarantee
    if not floor_kept:
        false_calls = int((called > threshold).sum())
        kept = bounds.guaranteed_share(len(called), false_calls, sure_floor) or None
        reason = "the specificity cannot be guaranteed at any threshold: too few lesions of other classes"
        return replace(guarantee, specificity=kept, more_lesions=None, reason=reason)
    needed = bounds.lesions_needed(missed / n if n else 0.0, sensitivity, sure)
    if n == 0:
        reason = "no lesion of this kind: nothing can be guaranteed, and the alarm never fires"
    elif allowed < 0:
        reason = "too few lesions of this kind"
    else:
        reason = "the sensitivity cannot be guaranteed together with the specificity"
    return replace(guarantee, more_lesions=None if needed is None else max(needed - n, 1), reason=reason)


def _below(ceiling: float, scores: np.ndarray) -> float:
    """A threshold half way between a score and the next lower one, so that rounding moves no alarm."""
    lower = scores[scores < ceiling]
    return float((ceiling + (lower.max() if lower.size else 0.0)) / 2)
