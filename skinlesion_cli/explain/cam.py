"""Class activation maps: which regions support a class.

For a network that ends in global average pooling and one linear layer, Grad-CAM (Selvaraju et al., 2017,
arXiv:1610.02391) of the last features needs no backward pass: the gradient of logit k with respect to
feature map c is w_kc / (h w) everywhere, so the map is ReLU(sum_c w_kc A_c) / (h w).

Its 7 x 7 places at 224 px are coarse, and each sees most of the image, so that the map spreads far beyond
the lesion, and trained networks tend to collect what they see in the same few places of every image.
`fused_maps` smooths it and multiplies it by how much each place differs from the rest of the image, in the
same features and in those of the layer with 14 x 14 places, which see less of the image.
`examples/map_study.py` compares it with other methods on lesions whose outlines are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image

from skinlesion_cli.inference.runtimes.base import Outputs, deviation


def class_maps(features: np.ndarray, classifier: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Grad-CAM of one class per image, not rescaled.

    Parameters
    ----------
    features : float32 (n, n_features, h, w), what global pooling sees.
    classifier : float32 (n_classes, n_features), weight of the last layer.
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


def fused_maps(outputs: Outputs, classifier: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Grad-CAM with its sum distributed over the places of a finer layer.

    With C the signed map sum_c w_kc A_c, E the distance of the last features at a place from their mean over
    the image, S their product ReLU(C) E, smoothed (`_spread`), and D the distance in the finer layer
    (`Outputs.detail`), the weight of a place is sqrt(S) D, where S and D are taken less their means over the
    image and not below zero.

    Parameters
    ----------
    outputs : of n images. classifier, classes : as for `class_maps`.

    Returns
    -------
    float32 (n, H, W), >= 0, on the finer of the two grids, in units of the logit: each map has the sum of
        Grad-CAM. Where no place stands out in all of them it is Grad-CAM itself, on that grid.
    """
    coarse = class_maps(outputs.features, classifier, classes)
    side = max(coarse.shape[1], outputs.detail.shape[1])
    evidence = _above_mean(_grown(_spread(coarse * deviation(outputs.features)), side))
    weights = np.sqrt(evidence) * _above_mean(_grown(outputs.detail, side))
    sums = weights.sum(axis=(1, 2))
    flat = sums <= 0
    weights[flat] = in_frame(coarse[flat], side)
    sums[flat] = weights[flat].sum(axis=(1, 2))
    ratio = np.divide(coarse.sum(axis=(1, 2)), sums, out=np.zeros_like(sums), where=sums > 0)
    result: np.ndarray = weights * ratio[:, None, None]
    return result


def _spread(maps: np.ndarray) -> np.ndarray:
    """Maps (n, h, w) with half of the value of every place spread over its neighbours, on each axis.

    Where in its field a place of the last features saw what speaks for the class is not known. Beyond the
    border there is nothing: places there count less, as part of what they see is padding.
    """
    down, across = (_neighbourhood(side) for side in maps.shape[1:])
    result: np.ndarray = down @ maps @ across
    return result


@lru_cache(maxsize=32)
def _neighbourhood(n_places: int) -> np.ndarray:
    """Half of each place in a line and a quarter of either neighbour, float32 (n_places, n_places)."""
    beside = np.eye(n_places, k=1) + np.eye(n_places, k=-1)
    return (0.5 * np.eye(n_places) + 0.25 * beside).astype(np.float32)


def _above_mean(maps: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.maximum(maps - maps.mean(axis=(1, 2), keepdims=True), 0.0)
    return result


def _grown(maps: np.ndarray, side: int) -> np.ndarray:
    """Maps (n, h, w) as float32 (n, side, side), bilinear."""
    if maps.shape[1:] == (side, side):
        return maps
    return resized(maps, side, side, Image.Resampling.BILINEAR)


def in_frame(maps: np.ndarray, side: int) -> np.ndarray:
    """Maps (n, h, w) on a grid of `side` x `side`, each keeping its sum (bilinear in between)."""
    grown = _grown(maps, side)
    if grown is maps:
        return maps
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


def resized(maps: np.ndarray, width: int, height: int, how: Image.Resampling) -> np.ndarray:
    """One map (h, w) or several (n, h, w) as float32 (height, width) or (n, height, width).

    Values are interpolated, not scaled, with the coefficients of Pillow: the same as `Image.resize`, but for
    a map of a few places two small matrix products are several times faster.
    """
    down = _interpolation(maps.shape[-2], height, how)
    across = _interpolation(maps.shape[-1], width, how)
    result: np.ndarray = down @ np.asarray(maps, dtype=np.float32) @ across.T
    return result


@lru_cache(maxsize=32)
def _interpolation(n_places: int, side: int, how: Image.Resampling) -> np.ndarray:
    """What each of `side` pixels takes of each of `n_places` values of a line, float32 (side, n_places)."""
    each = Image.fromarray(np.eye(n_places, dtype=np.float32))
    return np.asarray(each.resize((n_places, side), how))
