"""Where a map lies: how much of it outside the likely lesion, and how much at the border of the image.

The likely lesion is found by its darkness in the blue channel: a threshold by Otsu (1979,
doi:10.1109/TSMC.1979.4310076), and of the dark regions the one that holds most of the middle of the image. It
needs no network, so that it cannot share a network's mistakes. Its constants were chosen on 400 outlines of
ISIC 2018; `examples/map_flags.py` measures it on others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

from skinlesion_cli.explain.cam import resized

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
    from scipy import ndimage  # predictions without maps must not wait for it

    picture = Image.fromarray(image).resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BOX, reducing_gap=2.0)
    pixels = np.asarray(picture, dtype=np.float32)
    blue = ndimage.gaussian_filter(pixels[..., 2], _SMOOTHING_PX)
    inside = ~_dark_corners(pixels.mean(axis=2))
    values = blue[inside]
    if not len(values) or values.var() == 0:
        return None
    threshold, separability = _otsu(values)
    if separability < _LEAST_SEPARABILITY:
        return None
    dark, light = values[values <= threshold].mean(), values[values > threshold].mean()
    regions, count = ndimage.label((blue <= threshold + _TOWARDS_SKIN * (light - dark)) & inside)
    if not count:
        return None
    central = ndimage.sum_labels(_middle(), regions, np.arange(1, count + 1))
    lesion: np.ndarray = ndimage.binary_fill_holes(regions == 1 + int(central.argmax()))
    border = np.concatenate([lesion[0], lesion[-1], lesion[:, 0], lesion[:, -1]])
    return None if border.mean() > _MOST_OF_BORDER else lesion


def _dark_corners(brightness: np.ndarray) -> np.ndarray:
    """What the round field of a dermatoscope leaves black, with its soft edge: bool (h, w)."""
    from scipy import ndimage  # predictions without maps must not wait for it

    regions, _ = ndimage.label(ndimage.gaussian_filter(brightness, 1.0) < _DARK_CORNER)
    at_edge = np.unique(np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]]))
    corners: np.ndarray = np.isin(regions, at_edge[at_edge > 0])
    if corners.any():
        corners = ndimage.binary_dilation(corners, iterations=3)
    return corners


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


def _middle() -> np.ndarray:
    """Weight of a place: 1 in the middle, falling off towards the border, (96, 96)."""
    place = (np.arange(_SIDE_PX) + 0.5) / _SIDE_PX * 2 - 1
    weight: np.ndarray = np.exp(-(place[:, None] ** 2 + place[None, :] ** 2) / (2 * _MIDDLE**2))
    return weight


def _grown(lesion: np.ndarray) -> np.ndarray:
    """A mask and what is nearer to it than 5 % of the side."""
    from scipy import ndimage  # predictions without maps must not wait for it

    near: np.ndarray = ndimage.distance_transform_edt(~lesion) <= _GROWN_SHARE * _SIDE_PX
    return near
