"""The interface of every runtime: pixels in, logits out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np


class Runtime(Protocol):
    """One network, ready to run."""

    name: str

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits, float32 (n, 7), of pixels uint8 (n, s, s, 3)."""

    def logits_and_features(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits, and the last feature map, float32 (n, n_features, h, w), of the same forward pass."""


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
