"""The interface of every runtime: pixels, and metadata where the network takes it, in; logits out."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from skinlesion_cli.errors import ArtifactError


class Outputs(NamedTuple):
    """All that a network gives for n images, float32.

    Attributes
    ----------
    logits : (n, n_classes). features : (n, n_features, h, w), whose mean over the places feeds the
        classifier.
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
    """One network, ready to run.

    `metadata`, float32 (n, n_columns) as `data.metadata.encode` gives it, is for networks with a branch for
    it; None: nothing is known of any image.
    """

    name: str

    def logits(self, images: np.ndarray, metadata: np.ndarray | None = None) -> np.ndarray:
        """Logits, float32 (n, n_classes), of pixels uint8 (n, s, s, 3)."""

    def logits_and_features(
        self, images: np.ndarray, metadata: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logits, and the last feature map, float32 (n, n_features, h, w), of the same forward pass."""

    def outputs(self, images: np.ndarray, metadata: np.ndarray | None = None) -> Outputs:
        """The same with the detail that maps need; of an export that lacks it, that of the last features."""


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, float32, of logits (..., n_classes); computed in float64.

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
    run: Callable[[np.ndarray, np.ndarray | None], tuple[np.ndarray, ...]],
    images: np.ndarray,
    metadata: np.ndarray | None = None,
) -> tuple[np.ndarray, ...]:
    """The outputs of a batch whose images run one at a time, each with its row of metadata."""
    outputs = [
        run(
            np.ascontiguousarray(images[index : index + 1]),
            None if metadata is None else np.ascontiguousarray(metadata[index : index + 1]),
        )
        for index in range(len(images))
    ]
    return tuple(np.concatenate(parts) for parts in zip(*outputs, strict=True))


def metadata_input(
    metadata: np.ndarray | None, n_images: int, n_columns: int, name: str
) -> np.ndarray | None:
    """What an export gets as its second input: None where it has none (`n_columns` 0), zeros where nothing
    is known.

    Raises
    ------
    ArtifactError : something is known, but the export was made without that input.
    """
    if not n_columns:
        if metadata is not None and metadata.any():
            raise ArtifactError(
                f"the {name} export was made without the input for patient metadata",
                f"Run `skinlesion export --format {name}` again, or use --runtime torch.",
            )
        return None
    return np.zeros((n_images, n_columns), dtype=np.float32) if metadata is None else metadata
