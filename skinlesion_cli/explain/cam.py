"""Class activation maps: which regions support a class.

For a network that ends in global average pooling and one linear layer, Grad-CAM (Selvaraju et al., 2017,
arXiv:1610.02391) of the last features needs no backward pass: the gradient of logit k with respect to
feature map c is w_kc / (h w) everywhere, so the map is ReLU(sum_c w_kc A_c) / (h w).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image


def class_maps(features: np.ndarray, classifier: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Grad-CAM of one class per image, not rescaled.

    Parameters
    ----------
    features : float32 (n, n_features, h, w), what global pooling sees.
    classifier : float32 (7, n_features), weight of the last layer.
    classes : int64 (n,), the class to explain of each image.

    Returns
    -------
    float32 (n, h, w), >= 0; in units of the logit: its sum over a map is the positive part of what regions
    contribute to the class's logit.
    """
    n, n_features, height, width = features.shape
    # One small matrix product per image: einsum would copy the features to the layout it likes.
    flat = features.reshape(n, n_features, height * width)
    weighted = np.matmul(classifier[classes][:, None, :], flat).reshape(n, height, width)
    result: np.ndarray = np.maximum(weighted, 0.0) / (height * width)
    return result


def in_frame(maps: np.ndarray, side: int) -> np.ndarray:
    """Maps (n, h, w) on a grid of `side` x `side`, each keeping its sum (bilinear in between)."""
    if maps.shape[1:] == (side, side):
        return maps
    grown = np.stack([resized(heat, side, side, Image.Resampling.BILINEAR) for heat in maps])
    before, after = maps.sum(axis=(1, 2)), grown.sum(axis=(1, 2))
    ratio = np.divide(before, after, out=np.zeros_like(before), where=after > 0)
    result: np.ndarray = grown * ratio[:, None, None]
    return result


def combined(members: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Weighted mean of the members' maps in one frame, the finest grid of them all.

    Parameters
    ----------
    members : one array (n, h, w) per member, h and w of its own.
    weights : the ensemble's weights, sum 1.
    """
    side = max(max(maps.shape[1:]) for maps in members)
    total = [weight * in_frame(maps, side) for maps, weight in zip(members, weights, strict=True)]
    return np.asarray(np.sum(total, axis=0), dtype=np.float32)


def resized(heat: np.ndarray, width: int, height: int, how: Image.Resampling) -> np.ndarray:
    """A map as float32 (height, width); values are interpolated, not scaled."""
    image = Image.fromarray(np.ascontiguousarray(heat, dtype=np.float32))
    return np.asarray(image.resize((width, height), how))
