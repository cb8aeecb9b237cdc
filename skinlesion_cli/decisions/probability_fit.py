"""Fitting a probability calibration, and how much better it makes the probabilities.

scikit-learn's `CalibratedClassifierCV(..., method="temperature")` gives the same temperature (a test compares
them) but wants every class in the labels and a classifier to wrap; here there are only stored probabilities,
and a class may be missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from skinlesion_cli.decisions.calibration import (
    SMALLEST_AGAINST_THE_REST,
    SMALLEST_PROBABILITY,
    Method,
    ProbabilityCalibration,
    log_probabilities,
    softmax,
)
from skinlesion_cli.decisions.statistics.metrics import checked
from skinlesion_cli.errors import DataError

_LOG_TEMPERATURE_RANGE = (-4.0, 4.0)
# Pull towards "change nothing", in log loss summed over images: a rare class must not run away.
_PENALTY = 1.0
# No calibrated probability of 0: one image in so many more than were seen could be of the class.
_LEAST_ISOTONIC = 1e-4
ECE_BINS = 15


def fit(labels: np.ndarray, probabilities: np.ndarray, method: Method) -> ProbabilityCalibration:
    """The calibration of the least log loss on these images (isotonic: of the least squared error).

    Raises
    ------
    DataError : no images to fit on.
    """
    if method == "none":
        return ProbabilityCalibration()
    if len(labels) == 0:
        raise DataError("there are no images to calibrate on")
    return _FITS[method](np.asarray(labels), probabilities)


def _fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> ProbabilityCalibration:
    logits, rows = log_probabilities(probabilities), np.arange(len(labels))

    def mean_log_loss(log_t: float) -> float:
        scaled = logits / np.exp(log_t)
        top = scaled.max(axis=1)
        return float((np.log(np.exp(scaled - top[:, None]).sum(axis=1)) + top - scaled[rows, labels]).mean())

    best = minimize_scalar(
        mean_log_loss, bounds=_LOG_TEMPERATURE_RANGE, method="bounded", options={"xatol": 1e-9}
    )
    return ProbabilityCalibration("temperature", temperature=float(np.exp(best.x)))


def least_log_loss(
    labels: np.ndarray,
    *,
    start: np.ndarray,
    design: Callable[[np.ndarray], np.ndarray],
    gradient: Callable[[np.ndarray], np.ndarray],
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Parameters of the least log loss of softmax(design(parameters)), pulled towards `start`.

    Parameters
    ----------
    design : parameters to logits (n_images, n_classes). gradient : the derivative of the loss by logits,
        (n_images, n_classes), to that by parameters. weights : of the images; None: 1 each.
    """
    truth = np.eye(design(start).shape[1])[labels]
    weight = np.ones(len(labels)) if weights is None else weights

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        probabilities = softmax(design(parameters))
        picked = np.maximum((probabilities * truth).sum(axis=1), SMALLEST_PROBABILITY)
        pull = parameters - start
        loss = -(weight * np.log(picked)).sum() + _PENALTY * (pull**2).sum()
        return float(loss), gradient((probabilities - truth) * weight[:, None]) + 2 * _PENALTY * pull

    best: np.ndarray = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    return best


def _fit_vector(labels: np.ndarray, probabilities: np.ndarray) -> ProbabilityCalibration:
    logits = log_probabilities(probabilities)
    k = logits.shape[1]
    best = least_log_loss(
        labels,
        start=np.r_[np.ones(k), np.zeros(k)],
        design=lambda parameters: logits * parameters[:k] + parameters[k:],
        gradient=lambda error: np.r_[(error * logits).sum(axis=0), error.sum(axis=0)],
    )
    return ProbabilityCalibration("vector", weights=tuple(best[:k].tolist()), biases=tuple(best[k:].tolist()))


def _fit_dirichlet(labels: np.ndarray, probabilities: np.ndarray) -> ProbabilityCalibration:
    logits = log_probabilities(probabilities)
    k = logits.shape[1]
    best = least_log_loss(
        labels,
        start=np.r_[np.eye(k).ravel(), np.zeros(k)],
        design=lambda parameters: logits @ parameters[: k * k].reshape(k, k).T + parameters[k * k :],
        gradient=lambda error: np.r_[(error.T @ logits).ravel(), error.sum(axis=0)],
    )
    matrix = tuple(tuple(row) for row in best[: k * k].reshape(k, k).tolist())
    return ProbabilityCalibration("dirichlet", matrix=matrix, biases=tuple(best[k * k :].tolist()))


def _fit_beta(labels: np.ndarray, probabilities: np.ndarray) -> ProbabilityCalibration:
    p = np.clip(checked(probabilities), SMALLEST_AGAINST_THE_REST, 1.0 - SMALLEST_AGAINST_THE_REST)
    identity = np.array([1.0, 1.0, 0.0])

    def one(index: int) -> tuple[float, ...]:
        terms = np.stack([np.log(p[:, index]), -np.log1p(-p[:, index]), np.ones(len(p))], axis=1)
        truth = (labels == index).astype(float)

        def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
            odds, pull = terms @ parameters, parameters - identity
            loss = np.logaddexp(0.0, odds).sum() - (truth * odds).sum() + _PENALTY * (pull**2).sum()
            slope = terms.T @ (1.0 / (1.0 + np.exp(-odds)) - truth) + 2 * _PENALTY * pull
            return float(loss), slope

        # Ascending: neither weight may be negative.
        bounds = [(0.0, None), (0.0, None), (None, None)]
        return tuple(minimize(objective, identity, jac=True, method="L-BFGS-B", bounds=bounds).x.tolist())

    return ProbabilityCalibration("beta", coefficients=tuple(one(index) for index in range(p.shape[1])))


def _fit_isotonic(labels: np.ndarray, probabilities: np.ndarray) -> ProbabilityCalibration:
    from sklearn.isotonic import IsotonicRegression

    values = checked(probabilities)
    curves = []
    for index in range(values.shape[1]):
        model = IsotonicRegression(y_min=_LEAST_ISOTONIC, y_max=1.0, out_of_bounds="clip")
        model.fit(values[:, index], (labels == index).astype(float))
        curves.append((tuple(model.X_thresholds_.tolist()), tuple(model.y_thresholds_.tolist())))
    return ProbabilityCalibration("isotonic", curves=tuple(curves))


_FITS: dict[str, Callable[[np.ndarray, np.ndarray], ProbabilityCalibration]] = {
    "temperature": _fit_temperature,
    "vector": _fit_vector,
    "dirichlet": _fit_dirichlet,
    "beta": _fit_beta,
    "isotonic": _fit_isotonic,
}


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
    truth = np.eye(values.shape[1])[labels]
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
