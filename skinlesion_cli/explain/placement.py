"""Where a map lies: how much of it outside the likely lesion, and how much at the border of the image.

The likely lesion is found by its darkness in the blue channel: a threshold by Otsu (1979,
doi:10.1109/TSMC.1979.4310076), and of the dark regions the one that holds most of the middle of the image. It
needs no network, so that it cannot share a network's mistakes. Its constants were chosen on 400 outlines of
ISIC 2018; `examples/map_flags.py` measures it on others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from PIL import Image

from skinlesion_cli.explain.cam import resized
from skinlesion_cli.explain.opencv import opencv

MOSTLY: Final = 0.5
_SIDE_PX = 96
_SMOOTHING_PX = 2.0
_N_BINS = 64
# Otsu's threshold lies inside the lesion's soft border: outlines drawn by people are this share of the
# difference between skin and lesion further out.
_TOWARDS_SKIN = 0.2
# Below this share of the variance explained by two classes (Otsu's separability), there is no clear lesion.
_LEAST_SEPARABILITY = 0.65
# A region along more than half of the border is shadow, or all skin.
_MOST_OF_BORDER = 0.5
_DARK_CORNER = 40.0
_MIDDLE = 0.3
# Maps are coarse, and outlines uncertain: both studies of maps and this measure grow the lesion by as much.
_GROWN_SHARE = 0.05
_BORDER_SHARE = 0.1


@dataclass(frozen=True)
class Placement:
    """Shares of a map's sum, 0 to 1; None where undefined: the map is all zero, or no lesion was found.

    Attributes
    ----------
    outside_lesion : outside the likely lesion grown by 5 % of the side.
    at_border : in the outer tenth of the image, on every side.
    """

    outside_lesion: float | None
    at_border: float | None


def placement(image: np.ndarray, heat: np.ndarray) -> Placement:
    """Where a map lies on its image.

    Parameters
    ----------
    image : uint8 (height, width, 3). heat : float (h, w), >= 0, any scale.
    """
    if float(heat.max()) <= 0.0:
        return Placement(None, None)
    grown = resized(heat, _SIDE_PX, _SIDE_PX, Image.Resampling.BILINEAR)
    total = float(grown.sum())
    band = round(_BORDER_SHARE * _SIDE_PX)
    at_border = 1.0 - float(grown[band:-band, band:-band].sum()) / total
    lesion = likely_lesion(image)
    outside = None if lesion is None else float(grown[~_grown(lesion)].sum()) / total
    return Placement(outside, at_border)


def likely_lesion(image: np.ndarray) -> np.ndarray | None:
    """The dark region in the middle of an image, bool (96, 96) over all of it; None without a clear one.

    Parameters
    ----------
    image : uint8 (height, width, 3), upright RGB.
    """
    cv2 = opencv()
    pixels = cv2.resize(image, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    red, green, blue = cv2.split(pixels)
    inside = ~_dark_corners((red + green + blue) / 3)
    blue = _smoothed(blue, _SMOOTHING_PX)
    values = blue[inside]
    if not len(values) or values.var() == 0:
        return None
    threshold, separability = _otsu(values)
    if separability < _LEAST_SEPARABILITY:
        return None
    dark, light = values[values <= threshold].mean(), values[values > threshold].mean()
    regions = _regions((blue <= threshold + _TOWARDS_SKIN * (light - dark)) & inside)
    central = np.bincount(regions.ravel(), weights=_middle().ravel())[1:]
    if not len(central):
        return None
    lesion = _without_holes(regions == 1 + int(central.argmax()))
    border = np.concatenate([lesion[0], lesion[-1], lesion[:, 0], lesion[:, -1]])
    return None if border.mean() > _MOST_OF_BORDER else lesion


def _dark_corners(brightness: np.ndarray) -> np.ndarray:
    """What the round field of a dermatoscope leaves black, with its soft edge: bool (h, w)."""
    dark = _smoothed(brightness, 1.0) < _DARK_CORNER
    if not dark.any():
        return dark
    cv2 = opencv()
    regions = _regions(dark)
    is_corner = np.zeros(regions.max() + 1, np.uint8)
    is_corner[np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])] = 1
    is_corner[0] = 0
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    corners: np.ndarray = cv2.dilate(is_corner[regions], cross, iterations=3) > 0
    return corners


def _smoothed(values: np.ndarray, deviation_px: float) -> np.ndarray:
    """Gaussian filter of float32 (h, w), cut off at four standard deviations."""
    cv2 = opencv()
    size_px = 2 * round(4 * deviation_px) + 1
    result: np.ndarray = cv2.GaussianBlur(
        values, (size_px, size_px), deviation_px, borderType=cv2.BORDER_REFLECT
    )
    return result


def _regions(mask: np.ndarray) -> np.ndarray:
    """The connected regions of a mask: their numbers from 1 on, and 0 outside, int32 (h, w)."""
    # Two places are neighbours where they share a side.
    regions: np.ndarray = opencv().connectedComponents(mask.astype(np.uint8), connectivity=4)[1]
    return regions


def _without_holes(mask: np.ndarray) -> np.ndarray:
    """A mask, bool (h, w), and all that it encloses."""
    outside = np.pad(mask, 1).astype(np.uint8)
    opencv().floodFill(outside, None, (0, 0), 2)
    filled: np.ndarray = outside[1:-1, 1:-1] != 2
    return filled


def _otsu(values: np.ndarray) -> tuple[float, float]:
    """Otsu's threshold (the lower class is at or below it), and the share of the variance between classes."""
    counts, edges = np.histogram(values, _N_BINS)
    centres = (edges[1:] + edges[:-1]) / 2
    below = counts.cumsum()[:-1]
    above = counts.sum() - below
    sums = (counts * centres).cumsum()
    between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2 / counts.sum() ** 2
    best = int(between.argmax())
    return float(edges[best + 1]), float(between[best] / values.var())


@cache
def _middle() -> np.ndarray:
    """Weight of a place: 1 in the middle, falling off towards the border, (96, 96)."""
    place = (np.arange(_SIDE_PX) + 0.5) / _SIDE_PX * 2 - 1
    weight: np.ndarray = np.exp(-(place[:, None] ** 2 + place[None, :] ** 2) / (2 * _MIDDLE**2))
    return weight


def _grown(lesion: np.ndarray) -> np.ndarray:
    """A mask and what is nearer to it than 5 % of the side."""
    cv2 = opencv()
    away = cv2.distanceTransform((~lesion).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    near: np.ndarray = away <= _GROWN_SHARE * _SIDE_PX
    return near
