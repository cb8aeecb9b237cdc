"""The published search for thresholds, as it was (daorre1202/skin-lesion-classifier-CNN, 2026)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skinlesion_cli.decisions.policies.base import PolicyResult
from skinlesion_cli.decisions.settings import PUBLISHED_TARGETS, FitSettings, Target
from skinlesion_cli.decisions.statistics.metrics import checked
from skinlesion_cli.errors import UsageError
from skinlesion_cli.taxonomy import MALIGNANT

PUBLISHED_GRID = np.linspace(0.01, 0.99, 199)
PUBLISHED_FALLBACK_SPECIFICITY = 0.50
PUBLISHED_FALLBACK_THRESHOLD = 0.5


@dataclass(frozen=True)
class PublishedSearch:
    """`rule` tells by class which search found the threshold: `target`, `fallback_floor`, `fallback_0.5`."""

    thresholds: dict[str, float]
    rule: dict[str, str]


def published_thresholds(
    labels: np.ndarray, probabilities: np.ndarray, targets: Sequence[Target] = PUBLISHED_TARGETS
) -> PublishedSearch:
    """The published search, each class alone against the rest (daorre1202/skin-lesion-classifier-CNN, 2026).

    Over `linspace(0.01, 0.99, 199)`, positive where p >= θ: the largest θ with specificity >= floor and
    sensitivity >= target; if none, the same with a floor of 0.50; if none again, 0.5. It is tuned to one
    sample and guarantees nothing about new images. Without positives or negatives no θ qualifies.

    Parameters
    ----------
    labels : int64 (n_images,). probabilities : (n_images, 7), compared in float64.
    """
    values = checked(probabilities)
    thresholds, rule = {}, {}
    for target in targets:
        theta, found_by = _published_search(
            np.asarray(labels) == target.class_index, values[:, target.class_index], target
        )
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
    labels: np.ndarray, probabilities: np.ndarray, _lesion_ids: np.ndarray, settings: FitSettings
) -> PolicyResult:
    """The policy `published`."""
    search = published_thresholds(labels, probabilities, settings.targets or PUBLISHED_TARGETS)
    return PolicyResult(search.thresholds, search=search.rule)


def check(settings: FitSettings) -> None:
    """Its thresholds decide a class."""
    if any(target.class_name == MALIGNANT for target in settings.targets or ()):
        raise UsageError(
            f"the policy `published` has no threshold on {MALIGNANT}",
            "Give targets of classes, or --policy guaranteed.",
        )
