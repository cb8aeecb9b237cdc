"""Fitting a probability calibration, and how much better it makes the probabilities.

scikit-learn's `CalibratedClassifierCV(..., method="temperature")` gives the same temperature (a test compares
them) but wants every class in the labels and a classifier to wrap; here there are only stored probabilities,
and a class may be missing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from skinlesion_cli.decisions.calibration import SMALLEST_PROBABILITY, Method, ProbabilityCalibration, softmax
from skinlesion_cli.decisions.statistics.metrics import checked
from skinlesion_cli.errors import DataError
from skinlesion_cli.taxonomy import N_CLASSES

_LOG_TEMPERATURE_RANGE = (-4.0, 4.0)
# Pull towards "change nothing", in log loss summed over images: a rare class must not run away.
_VECTOR_PENALTY = 1.0
ECE_BINS = 15


def log_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Logarithms with zeros replaced by the smallest probability told apart."""
    result: np.ndarray = np.log(np.maximum(checked(probabilities), SMALLEST_PROBABILITY))
    return result


def fit(labels: np.ndarray, probabilities: np.ndarray, method: Method) -> ProbabilityCalibration:
    """The calibration of the least log loss on these images.

    Raises
    ------
    DataError : no images to fit on.
    """
    if method == "none":
        return ProbabilityCalibration()
    if len(labels) == 0:
        raise DataError("there are no images to calibrate on")
    logits, rows = log_probabilities(probabilities), np.arange(len(labels))

    def nll(scaled: np.ndarray) -> float:
        top = scaled.max(axis=1, keepdims=True)
        total = np.log(np.exp(scaled - top).sum(axis=1)) + top[:, 0]
        return float((total - scaled[rows, labels]).sum())

    if method == "temperature":
        found = minimize_scalar(
            lambda log_t: nll(logits / np.exp(log_t)) / len(labels),
            bounds=_LOG_TEMPERATURE_RANGE,
            method="bounded",
            options={"xatol": 1e-9},
        )
        return ProbabilityCalibration("temperature", temperature=float(np.exp(found.x)))
    return _fit_vector(labels, logits)


def _fit_vector(labels: np.ndarray, logits: np.ndarray) -> ProbabilityCalibration:
    truth = np.eye(N_CLASSES)[labels]

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, biases = parameters[:N_CLASSES], parameters[N_CLASSES:]
        probabilities = softmax(logits * weights + biases)
        picked = np.maximum((probabilities * truth).sum(axis=1), SMALLEST_PROBABILITY)
        pull = np.r_[weights - 1.0, biases]
        error = probabilities - truth
        gradient = np.r_[(error * logits).sum(axis=0), error.sum(axis=0)] + 2 * _VECTOR_PENALTY * pull
        return float(-np.log(picked).sum() + _VECTOR_PENALTY * (pull**2).sum()), gradient

    start = np.r_[np.ones(N_CLASSES), np.zeros(N_CLASSES)]
    found = minimize(objective, start, jac=True, method="L-BFGS-B").x
    return ProbabilityCalibration(
        "vector", weights=tuple(found[:N_CLASSES].tolist()), biases=tuple(found[N_CLASSES:].tolist())
    )


@dataclass(frozen=True)
class Sharpness:
    """How far probabilities are from the truth; lower is better; NaN without images.

    `ece` : expected calibration error of the top class over 15 bins of equal width (Guo et al., 2017).
    `brier` : mean squared distance to the one-hot truth, summed over the classes (0 to 2; Brier, 1950).
    `log_loss` : mean negative logarithm of the true class's probability.
    """

    ece: float
    brier: float
    log_loss: float


def sharpness(labels: np.ndarray, probabilities: np.ndarray) -> Sharpness:
    """ECE, Brier score and log loss."""
    values, labels = checked(probabilities), np.asarray(labels)
    if len(labels) == 0:
        return Sharpness(float("nan"), float("nan"), float("nan"))
    rows = np.arange(len(labels))
    truth = np.eye(N_CLASSES)[labels]
    log_loss = -np.log(np.maximum(values[rows, labels], SMALLEST_PROBABILITY)).mean()
    return Sharpness(
        ece=expected_calibration_error(labels, values),
        brier=float(((values - truth) ** 2).sum(axis=1).mean()),
        log_loss=float(log_loss),
    )


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean |accuracy - confidence| over 15 bins of the top probability, weighted by images."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(labels))
