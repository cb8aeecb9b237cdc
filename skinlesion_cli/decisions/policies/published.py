"""The published search for thresholds, as it was (daorre1202/skin-lesion-classifier-CNN, 2026)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skinlesion_cli.decisions.policies.base import PolicyResult
from skinlesion_cli.decisions.settings import FitSettings, Target
from skinlesion_cli.decisions.statistics.metrics import checked
from skinlesion_cli.errors import UsageError
from skinlesion_cli.taxonomy import DEFAULT, MALIGNANT, ClassList, shipped

# What the published thresholds were tuned to, and which class wins where both fire.
PUBLISHED_TARGETS: tuple[Target, ...] = (Target("MEL", 0.85, 0.85), Target("AKIEC", 0.75, 0.70))
PUBLISHED_PRIORITY: tuple[str, ...] = tuple(target.class_name for target in PUBLISHED_TARGETS)
PUBLISHED_GRID = np.linspace(0.01, 0.99, 199)
PUBLISHED_FALLBACK_SPECIFICITY = 0.50
PUBLISHED_FALLBACK_THRESHOLD = 0.5


def default_targets(classes: ClassList) -> tuple[Target, ...]:
    """The published targets, for the classes that it was published for; none for other lists."""
    return PUBLISHED_TARGETS if classes.agrees_with(shipped(DEFAULT)) else ()


def default_priority(classes: ClassList) -> tuple[str, ...]:
    """The published order of precedence, as far as the list has these classes."""
    return tuple(code for code in PUBLISHED_PRIORITY if code in classes.index)


@dataclass(frozen=True)
class PublishedSearch:
    """`rule` tells by class which search found the threshold: `target`, `fallback_floor`, `fallback_0.5`."""

    thresholds: dict[str, float]
    rule: dict[str, str]


def published_thresholds(
    labels: np.ndarray, probabilities: np.ndarray, targets: Sequence[Target], classes: ClassList
) -> PublishedSearch:
    """The published search, each class alone against the rest (daorre1202/skin-lesion-classifier-CNN, 2026).

    Over `linspace(0.01, 0.99, 199)`, positive where p >= θ: the largest θ with specificity >= floor and
    sensitivity >= target; if none, the same with a floor of 0.50; if none again, 0.5. It is tuned to one
    sample and guarantees nothing about new images. Without positives or negatives no θ qualifies.

    Parameters
    ----------
    labels : int64 (n_images,). probabilities : (n_images, n_classes), compared in float64.
    """
    values = checked(probabilities)
    thresholds, rule = {}, {}
    for target in targets:
        index = classes.index[target.class_name]
        theta, found_by = _published_search(np.asarray(labels) == index, values[:, index], target)
        thresholds[target.class_name], rule[target.class_name] = theta, found_by
    return PublishedSearch(thresholds, rule)


def _published_search(positive: np.ndarray, scores: np.ndarray, target: Target) -> tuple[float, str]:
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if n_positive and n_negative:
        called = scores[:, None] >= PUBLISHED_GRID[None, :]
        sensitivity = called[positive].sum(axis=0) / n_positive
        specificity = (~called[~positive]).sum(axis=0) / n_negative
        floors = (target.specificity or 0.0, PUBLISHED_FALLBACK_SPECIFICITY)
        for floor, name in zip(floors, ("target", "fallback_floor"), strict=True):
            fits = (specificity >= floor) & (sensitivity >= target.sensitivity)
            if fits.any():
                return float(PUBLISHED_GRID[np.flatnonzero(fits)[-1]]), name
    return PUBLISHED_FALLBACK_THRESHOLD, "fallback_0.5"


def find(
    labels: np.ndarray,
    probabilities: np.ndarray,
    _lesion_ids: np.ndarray,
    settings: FitSettings,
    classes: ClassList,
) -> PolicyResult:
    """The policy `published`."""
    targets = settings.targets or default_targets(classes)
    search = published_thresholds(labels, probabilities, targets, classes)
    return PolicyResult(search.thresholds, search=search.rule)


def check(settings: FitSettings, classes: ClassList) -> None:
    """Its thresholds decide a class, and it was published for the classes of ISIC 2018."""
    if not classes.agrees_with(shipped(DEFAULT)):
        raise UsageError(
            f"the policy `published` belongs to the classes of {DEFAULT}, not to {classes.described}",
            "Use --policy guaranteed, with --target for the classes that need an alarm.",
        )
    if any(target.class_name == MALIGNANT for target in settings.targets or ()):
        raise UsageError(
            f"the policy `published` has no threshold on {MALIGNANT}",
            "Give targets of classes, or --policy guaranteed.",
        )
