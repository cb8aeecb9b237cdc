"""What reading an image gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LoadedImage:
    """An image as it was read.

    Attributes
    ----------
    pixels : uint8 (height, width, 3), upright sRGB.
    notes : what was done or assumed on the way, one short sentence each; empty for an ordinary image.
    """

    pixels: np.ndarray
    notes: tuple[str, ...] = ()
