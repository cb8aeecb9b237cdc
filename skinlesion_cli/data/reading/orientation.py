"""The EXIF orientation of an image, and its pixels turned upright."""

from __future__ import annotations

from typing import Any

import numpy as np

_ORIENTATION_TAG = 0x0112


def orientation_of(image: Any) -> int:
    """The EXIF orientation of an image of Pillow, 1 to 8; 1 where it has none that can be read."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:
        # An EXIF block that cannot be read says nothing about the orientation; the pixels are intact.
        return 1
    return orientation if orientation in range(2, 9) else 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (height, width, channels) as they are to be seen; 5 to 8 swap height and width."""
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
