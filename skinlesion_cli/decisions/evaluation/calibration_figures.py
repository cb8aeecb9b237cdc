"""Do probabilities mean what they say, class by class? On average, in slope, and bin by bin."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from skinlesion_cli.decisions.probability_fit import ECE_BINS, sharpness
from skinlesion_cli.decisions.statistics.bounds import binomial_interval
from skinlesion_cli.decisions.statistics.metrics import checked
from skinlesion_cli.decisions.triage import malignant_probability
from skinlesion_cli.taxonomy import MALIGNANT, ClassList

RELIABILITY_BINS = 10
_LEAST = 1e-6  # of a probability whose log odds are taken
_NEWTON_STEPS = 50


@dataclass(frozen=True)
class Calibrated:
    """How one probability agrees with what happened; NaN where undefined.

    `mean_predicted` and `observed` : mean probability, and share of images of the class.
    `error` : mean |observed - predicted| over 15 bins of equal width, weighted by images (class-wise
        calibration error; Nixon et al., 2019, arXiv:1904.01685).
    `intercept` : log odds that are lacking (above 0) or too many (below 0) on the whole; 0 is right.
    `slope` : of the log odds; below 1: probabilities are too extreme (Cox, 1958; Van Calster et al., 2019).
    """

    mean_predicted: float
    observed: float
    error: float
    intercept: float
    slope: float


def calibrated(scores: np.ndarray, positive: np.ndarray) -> Calibrated:
    """Judge one probability, both arrays (n_images,)."""
    p, truth = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=np.float64)
    if not len(p):
        return Calibrated(*[float("nan")] * 5)
    bins = np.minimum((p * ECE_BINS).astype(int), ECE_BINS - 1)
    error = np.abs(np.bincount(bins, p - truth, ECE_BINS)).sum() / len(p)
    intercept, slope = float("nan"), float("nan")
    if 0.0 < truth.mean() < 1.0:
        clipped = np.clip(p, _LEAST, 1.0 - _LEAST)
        odds = np.log(clipped / (1.0 - clipped))
        intercept = _logistic(np.ones((len(p), 1)), truth, odds)[0]
        slope = _logistic(np.stack([np.ones(len(p)), odds], axis=1), truth, np.zeros(len(p)))[1]
    return Calibrated(float(p.mean()), float(truth.mean()), float(error), float(intercept), float(slope))


def _logistic(terms: np.ndarray, truth: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Coefficients of a logistic regression with an offset, by Newton's method; NaN where there is no
    maximum.
    """
    beta = np.zeros(terms.shape[1])
    for _ in range(_NEWTON_STEPS):
        p = 1.0 / (1.0 + np.exp(-np.clip(offset + terms @ beta, -30, 30)))
        hessian = (terms * (p * (1.0 - p))[:, None]).T @ terms
        if np.linalg.cond(hessian) > 1e12:
            return np.full(terms.shape[1], np.nan)
        step = np.linalg.solve(hessian, terms.T @ (truth - p))
        beta = beta + step
        if np.abs(step).max() < 1e-10:
            return beta
    return np.full(terms.shape[1], np.nan)


@dataclass(frozen=True)
class Bin:
    """Images of similar probability: how many, their mean probability, and the share that is of the class
    with an exact 95 % interval that takes images for independent."""

    images: int
    mean_predicted: float
    observed: float
    low: float
    high: float


def reliability(scores: np.ndarray, positive: np.ndarray, n_bins: int = RELIABILITY_BINS) -> tuple[Bin, ...]:
    """The reliability curve: bins of as many images each, in ascending order of probability."""
    order = np.argsort(scores, kind="stable")
    bins = []
    for rows in np.array_split(order, n_bins):
        if len(rows):
            hits = int(np.sum(positive[rows]))
            low, high = binomial_interval(hits, len(rows))
            bins.append(Bin(len(rows), float(np.mean(scores[rows])), hits / len(rows), low, high))
    return tuple(bins)


def calibration_figures(labels: np.ndarray, probabilities: np.ndarray, classes: ClassList) -> dict[str, Any]:
    """All of it: `by_class` (and `malignant`, where a class is), `class_error` (their mean over the
    classes), the reliability curve of the malignant probability, and the figures of `sharpness`."""
    values, labels = checked(probabilities), np.asarray(labels)
    by_class = {name: calibrated(values[:, i], labels == i) for i, name in enumerate(classes.codes)}
    class_error = float(np.mean([each.error for each in by_class.values()]))
    curve: tuple[Bin, ...] = ()
    if classes.has_malignant:
        malignant = malignant_probability(values, classes).astype(np.float64)
        ill = classes.is_malignant[labels]
        by_class[MALIGNANT], curve = calibrated(malignant, ill), reliability(malignant, ill)
    return {
        **asdict(sharpness(labels, values)),
        "class_error": class_error,
        "by_class": {name: asdict(each) for name, each in by_class.items()},
        "malignant_reliability": [asdict(each) for each in curve],
    }
