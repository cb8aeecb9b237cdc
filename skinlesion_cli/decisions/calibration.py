"""Probability calibration: making 0.8 mean right in 80 of 100."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from skinlesion_cli.decisions.statistics.metrics import checked
from skinlesion_cli.errors import DataError
from skinlesion_cli.taxonomy import N_CLASSES

Method = Literal["temperature", "vector", "none"]
METHODS: tuple[Method, ...] = ("temperature", "vector", "none")
# Below this a probability counts as this when its logarithm is weighted by class (0 has none).
SMALLEST_PROBABILITY = 1e-12


def softmax(logits: np.ndarray) -> np.ndarray:
    """Rows of logits to probabilities; -inf gives exactly 0. A row needs one finite logit."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: np.ndarray = shifted / shifted.sum(axis=1, keepdims=True)
    return result


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Temperature scaling of probabilities: p ∝ p^(1/T), worked out on logarithms.

    T > 1 takes confidence away, T < 1 adds it; the order of the classes stays. A 0 stays 0, and a row that is
    sure (one 1, the rest 0) stays so. Source: Guo et al., 2017 (arXiv:1706.04599).

    Returns
    -------
    float32 of shape (n_images, 7).
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise DataError(f"a temperature must be a positive number, not {temperature}")
    with np.errstate(divide="ignore"):
        logits = np.log(checked(probabilities)) / temperature
    return softmax(logits).astype(np.float32)


def apply_vector(probabilities: np.ndarray, weights: np.ndarray, biases: np.ndarray) -> np.ndarray:
    """Vector scaling: p_k ∝ p_k^w_k · exp(b_k); float32 of shape (n_images, 7).

    It may change the order of the classes. Source: Guo et al., 2017 (arXiv:1706.04599).
    """
    logits = np.log(np.maximum(checked(probabilities), SMALLEST_PROBABILITY))
    return softmax(logits * np.asarray(weights) + np.asarray(biases)).astype(np.float32)


@dataclass(frozen=True)
class ProbabilityCalibration:
    """How probabilities become calibrated ones. `weights` and `biases` (7 each) only for `vector`."""

    method: Method = "none"
    temperature: float = 1.0
    weights: tuple[float, ...] = ()
    biases: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.method == "vector" and not len(self.weights) == len(self.biases) == N_CLASSES:
            raise DataError(f"vector scaling needs {N_CLASSES} weights and {N_CLASSES} biases")

    def apply(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated probabilities: float32 of shape (n_images, 7)."""
        if self.method == "temperature":
            return apply_temperature(probabilities, self.temperature)
        if self.method == "vector":
            return apply_vector(probabilities, np.array(self.weights), np.array(self.biases))
        return checked(probabilities).astype(np.float32)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> ProbabilityCalibration:
        """From its fields in JSON types."""
        return cls(
            method=stored["method"],
            temperature=stored["temperature"],
            weights=tuple(stored["weights"]),
            biases=tuple(stored["biases"]),
        )
