"""Fitting the triage: conformal minima by class, and the operating point for malignancy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from skinlesion_cli.decisions.settings import DEFAULT_COVERAGE, DEFAULT_MALIGNANT_SENSITIVITY
from skinlesion_cli.decisions.statistics import bounds
from skinlesion_cli.decisions.statistics.lesions import group, votes
from skinlesion_cli.decisions.statistics.metrics import checked
from skinlesion_cli.decisions.triage import IS_MALIGNANT, malignant_probability
from skinlesion_cli.errors import UsageError
from skinlesion_cli.taxonomy import N_CLASSES


def conformal_minima(
    labels: np.ndarray, probabilities: np.ndarray, lesion_ids: np.ndarray, coverage: float = DEFAULT_COVERAGE
) -> tuple[float, ...]:
    """The least probability with which each class stays in the set: 7 floats.

    The set then holds the true class of a new lesion with at least this probability, for every class by
    itself (Mondrian; Vovk et al., 2005): the minimum is the floor((1-coverage)(n+1))-th smallest probability
    that the n lesions of the class gave it, one vote a lesion.
    A class with too few lesions gets 0 and is never left out.
    """
    if not 0.0 < coverage < 1.0:
        raise UsageError(f"coverage {coverage} is no share between 0 and 1")
    values, labels = checked(probabilities), np.asarray(labels)
    codes = group(lesion_ids, labels).codes
    minima = []
    for index in range(N_CLASSES):
        mine = labels == index
        scores = np.sort(votes(values[mine, index], codes[mine]))
        rank = math.floor((1.0 - coverage) * (len(scores) + 1) + 1e-9)
        minima.append(float(scores[rank - 1]) if rank >= 1 else 0.0)
    return tuple(minima)


@dataclass(frozen=True)
class OperatingPoint:
    """`malignant probability > threshold` catches malignant lesions with this `sensitivity`,
    at this confidence.

    `granted` False: the target was out of reach, and every lesion that is not certain
    to be benign is referred.
    """

    threshold: float
    granted: bool
    sensitivity: float | None
    target_sensitivity: float
    confidence: float
    lesions: int
    missed: int
    more_lesions: int | None


def malignant_operating_point(
    labels: np.ndarray,
    probabilities: np.ndarray,
    lesion_ids: np.ndarray,
    sensitivity: float = DEFAULT_MALIGNANT_SENSITIVITY,
    confidence: float = 0.95,
    horizon: int | None = None,
) -> OperatingPoint:
    """The highest threshold on the malignant probability that keeps the sensitivity on new lesions."""
    labels = np.asarray(labels)
    codes = group(lesion_ids, labels).codes
    scores = malignant_probability(probabilities).astype(np.float64)
    mine = IS_MALIGNANT[labels]
    caught = np.sort(votes(scores[mine], codes[mine]))
    n = len(caught)
    allowed = bounds.allowed_misses(n, sensitivity, confidence, horizon)
    if allowed >= 0 and caught[allowed] > 0.0:
        ceiling = caught[allowed]
        lower = scores[scores < ceiling]
        threshold = float((ceiling + (lower.max() if lower.size else 0.0)) / 2)
        missed = int((caught <= threshold).sum())
        return OperatingPoint(threshold, True, sensitivity, sensitivity, confidence, n, missed, 0)
    missed = int((caught <= 0.0).sum())
    guaranteed = bounds.guaranteed_share(n, missed, confidence, horizon)
    needed = bounds.lesions_needed(missed / n if n else 0.0, sensitivity, confidence)
    more = None if needed is None else max(needed - n, 1)
    return OperatingPoint(0.0, False, guaranteed or None, sensitivity, confidence, n, missed, more)
