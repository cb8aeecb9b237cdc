"""Probability calibration: making 0.8 mean right in 80 of 100, for every class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from skinlesion_cli.decisions.statistics.metrics import checked
from skinlesion_cli.errors import DataError

Method = Literal["vector", "temperature", "dirichlet", "beta", "isotonic", "none"]
METHODS: tuple[Method, ...] = ("vector", "temperature", "dirichlet", "beta", "isotonic", "none")
# Below this a probability counts as this when its logarithm is weighted by class (0 has none).
SMALLEST_PROBABILITY = 1e-12
# The methods that look at one class against the rest: beyond this float32 tells probabilities apart no
# better.
SMALLEST_AGAINST_THE_REST = 1e-6

Numbers = tuple[float, ...]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Rows of logits to probabilities; -inf gives exactly 0. A row needs one finite logit."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: np.ndarray = shifted / shifted.sum(axis=1, keepdims=True)
    return result


def log_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Logarithms with zeros replaced by the smallest probability told apart: float64 (n_images,
    n_classes).
    """
    logarithms: np.ndarray = np.log(np.maximum(checked(probabilities), SMALLEST_PROBABILITY))
    return logarithms


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Temperature scaling of probabilities: p ∝ p^(1/T), worked out on logarithms.

    T > 1 takes confidence away, T < 1 adds it; the order of the classes stays. A 0 stays 0, and a row that is
    certain (one 1, the rest 0) stays so. Source: Guo et al., 2017 (arXiv:1706.04599).

    Returns
    -------
    float32 of shape (n_images, n_classes).
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise DataError(f"a temperature must be a positive number, got {temperature}")
    with np.errstate(divide="ignore"):
        logits = np.log(checked(probabilities)) / temperature
    return softmax(logits).astype(np.float32)


def apply_linear(probabilities: np.ndarray, matrix: np.ndarray, biases: np.ndarray) -> np.ndarray:
    """softmax(W · log p + b); float32 of shape (n_images, n_classes). It may change the order of the classes.

    `matrix` of shape (n_classes,), its diagonal: vector scaling (Guo et al., 2017, arXiv:1706.04599). Of
    shape (n_classes, n_classes): Dirichlet calibration (Kull et al., 2019, arXiv:1910.12656).
    """
    logits, weights = log_probabilities(probabilities), np.asarray(matrix)
    scaled = logits * weights if weights.ndim == 1 else logits @ weights.T
    return softmax(scaled + np.asarray(biases)).astype(np.float32)


def apply_beta(probabilities: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Beta calibration of each class against the rest, divided by its sum: float32 of shape (n_images,
    n_classes).

    `coefficients` (n_classes, 3): log odds = a · log p - b · log(1 - p) + c (Kull et al., 2017).
    """
    p = np.clip(checked(probabilities), SMALLEST_AGAINST_THE_REST, 1.0 - SMALLEST_AGAINST_THE_REST)
    a, b, c = np.asarray(coefficients, dtype=np.float64).T
    return _share(1.0 / (1.0 + np.exp(-(a * np.log(p) - b * np.log1p(-p) + c))))


def apply_isotonic(probabilities: np.ndarray, curves: tuple[tuple[Numbers, Numbers], ...]) -> np.ndarray:
    """An ascending curve for each class against the rest, divided by their sum: float32 of shape
    (n_images, n_classes).

    `curves` : probabilities and their calibrated values, by class; linear in between (Zadrozny and Elkan,
    2002).
    """
    values = checked(probabilities)
    columns = [np.interp(values[:, index], x, y) for index, (x, y) in enumerate(curves)]
    return _share(np.maximum(np.stack(columns, axis=1), SMALLEST_AGAINST_THE_REST))


def _share(positive: np.ndarray) -> np.ndarray:
    shares: np.ndarray = (positive / positive.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


@dataclass(frozen=True)
class ProbabilityCalibration:
    """How probabilities become calibrated ones; each method uses the fields that it needs.

    `temperature` for `temperature`; `weights` and `biases` (one per class) for `vector`; `matrix`
    (n_classes, n_classes) and `biases` for `dirichlet`; `coefficients` (n_classes, 3) for `beta`; `curves`
    (one pair per class) for `isotonic`.
    """

    method: Method = "none"
    temperature: float = 1.0
    weights: Numbers = ()
    biases: Numbers = ()
    matrix: tuple[Numbers, ...] = ()
    coefficients: tuple[Numbers, ...] = ()
    curves: tuple[tuple[Numbers, Numbers], ...] = ()

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise DataError(
                f"no probability calibration named {self.method!r}", "Known: " + ", ".join(METHODS)
            )
        lengths = {len(part) for part in self._parameters()}
        if len(lengths) > 1 or 0 in lengths:
            raise DataError(f"calibration by `{self.method}` needs one parameter of each kind per class")

    def _parameters(self) -> tuple[tuple[Any, ...], ...]:
        """What has one entry per class."""
        needed: dict[str, tuple[tuple[Any, ...], ...]] = {
            "vector": (self.weights, self.biases),
            "dirichlet": (self.biases, self.matrix, *self.matrix),
            "beta": (self.coefficients,),
            "isotonic": (self.curves,),
        }
        return needed.get(self.method, ())

    @property
    def n_classes(self) -> int | None:
        """Of the probabilities that it was fitted on; None where any number will do."""
        return next((len(part) for part in self._parameters()), None)

    def apply(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated probabilities: float32 of shape (n_images, n_classes).

        Raises
        ------
        DataError : it was fitted on another number of classes.
        """
        if self.n_classes not in (None, np.shape(probabilities)[1]):
            raise DataError(
                f"the calibration is for {self.n_classes} classes, the probabilities have "
                f"{np.shape(probabilities)[1]}"
            )
        match self.method:
            case "temperature":
                return apply_temperature(probabilities, self.temperature)
            case "vector":
                return apply_linear(probabilities, np.array(self.weights), np.array(self.biases))
            case "dirichlet":
                return apply_linear(probabilities, np.array(self.matrix), np.array(self.biases))
            case "beta":
                return apply_beta(probabilities, np.array(self.coefficients))
            case "isotonic":
                return apply_isotonic(probabilities, self.curves)
            case _:
                return checked(probabilities).astype(np.float32)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> ProbabilityCalibration:
        """From its fields in JSON types."""
        return cls(
            method=stored["method"],
            temperature=float(stored["temperature"]),
            weights=_numbers(stored["weights"]),
            biases=_numbers(stored["biases"]),
            matrix=tuple(_numbers(row) for row in stored.get("matrix", ())),
            coefficients=tuple(_numbers(row) for row in stored.get("coefficients", ())),
            curves=tuple((_numbers(x), _numbers(y)) for x, y in stored.get("curves", ())),
        )


def _numbers(values: Any) -> Numbers:
    return tuple(float(value) for value in values)
