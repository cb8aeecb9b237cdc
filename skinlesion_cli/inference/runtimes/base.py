"""The interface of every runtime: pixels in, logits out."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np


class Outputs(NamedTuple):
    """All that a network gives for n images, float32.

    Attributes
    ----------
    logits : (n, 7). features : (n, n_features, h, w), whose mean over the places feeds the classifier.
    detail : (n, h', w'), >= 0, how much a place of a finer layer differs from the rest of the image; see
        `models.network.LesionNet.features_and_detail`.
    """

    logits: np.ndarray
    features: np.ndarray
    detail: np.ndarray


def deviation(features: np.ndarray) -> np.ndarray:
    """Euclidean distance of the features (n, c, h, w) at every place from their mean over the image,
    float32 (n, h, w).
    """
    away = features - features.mean(axis=(2, 3), keepdims=True)
    result: np.ndarray = np.sqrt(np.square(away).sum(axis=1))
    return result


class Runtime(Protocol):
    """One network, ready to run."""

    name: str

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits, float32 (n, 7), of pixels uint8 (n, s, s, 3)."""

    def logits_and_features(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits, and the last feature map, float32 (n, n_features, h, w), of the same forward pass."""

    def outputs(self, images: np.ndarray) -> Outputs:
        """The same with the detail that maps need; of an export that lacks it, that of the last features."""


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, float32, of logits (..., 7); computed in float64.

    Raises
    ------
    FloatingPointError : a logit is NaN or infinite. (The argmax of NaN is 0, and 0 is melanoma.)
    """
    wide = logits.astype(np.float64)
    if not np.isfinite(wide).all():
        raise FloatingPointError("the network returned logits that are not finite")
    wide -= wide.max(axis=-1, keepdims=True)
    exponents = np.exp(wide)
    result: np.ndarray = (exponents / exponents.sum(axis=-1, keepdims=True)).astype(np.float32)
    return result


def one_by_one(
    run: Callable[[np.ndarray], tuple[np.ndarray, ...]], images: np.ndarray
) -> tuple[np.ndarray, ...]:
    """The outputs of a batch whose images run one at a time."""
    outputs = [run(np.ascontiguousarray(images[index : index + 1])) for index in range(len(images))]
    return tuple(np.concatenate(parts) for parts in zip(*outputs, strict=True))
