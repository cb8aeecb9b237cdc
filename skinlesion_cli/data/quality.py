"""Statistics of an image by which the quality gate judges it: sharpness, light, hair, ink, colour."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from skinlesion_cli.data.preprocess import resize_square

# All statistics are measured at this size, so that they do not depend on the camera's resolution.
_SIZE_PX = 128
# Grey closing with a square of this side removes dark lines thinner than it: hairs.
_HAIR_PX = 7
_HAIR_CONTRAST = 25
# Ink is blue, violet or green: colours that skin and lesions hardly have at this saturation.
_INK_EXCESS = 12
_DARK, _BRIGHT = 40, 250


def statistics(image: np.ndarray) -> dict[str, float]:
    """Statistics of an image, by the names in `STATISTICS`; all finite.

    Parameters
    ----------
    image : uint8 array of shape (height, width, 3), upright RGB.
    """
    small = resize_square(image, _SIZE_PX)
    pixels = small.astype(np.float64)
    red, green, blue = (pixels[..., channel] for channel in range(3))
    picture = Image.fromarray(small).convert("L")
    grey = np.asarray(picture, dtype=np.float64)
    # Variance of the Laplacian as a measure of focus (Pech-Pacheco et al., 2000), relative to the contrast.
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4.0 * grey[1:-1, 1:-1]
    hair = _closed(np.asarray(picture), _HAIR_PX) - grey > _HAIR_CONTRAST
    ink = (blue - red > _INK_EXCESS) | (green - red > _INK_EXCESS)
    steps = np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()
    quarter = _SIZE_PX // 4
    centre = grey[quarter:-quarter, quarter:-quarter].mean()
    return {
        "log_sharpness": float(np.log(laplacian.var() + 1.0) - np.log(grey.var() + 1.0)),
        "brightness": float(grey.mean()),
        "contrast": float(grey.std()),
        "dark_share": float((grey < _DARK).mean()),
        "bright_share": float((grey > _BRIGHT).mean()),
        "hair_share": float(hair.mean()),
        "marker_share": float(ink.mean()),
        "red_over_green": float(np.log((red.mean() + 1.0) / (green.mean() + 1.0))),
        "green_over_blue": float(np.log((green.mean() + 1.0) / (blue.mean() + 1.0))),
        "red_spread": float((red - green).std()),
        "blue_spread": float((green - blue).std()),
        "log_edges": float(np.log(steps + 1.0)),
        "centre_minus_border": float(centre - grey.mean()),
    }


def _closed(grey: np.ndarray, size_px: int) -> np.ndarray:
    """Grey closing (dilation, then erosion) of uint8 (h, w) with a square; one axis after the other."""
    for extreme in (np.maximum, np.minimum):
        for axis in (0, 1):
            reach = size_px // 2
            width = [(reach, reach) if a == axis else (0, 0) for a in (0, 1)]
            windows = sliding_window_view(np.pad(grey, width, mode="edge"), size_px, axis=axis)
            grey = extreme.reduce(windows, axis=-1)
    return grey
