"""From a decoded image to the network's input, the same in training and in prediction.

numpy and Pillow only: prediction on other runtimes than torch uses this too.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from skinlesion_cli.config.schema import Interpolation, Preprocessing

FILTERS: dict[Interpolation, Image.Resampling] = {
    "antialias": Image.Resampling.BILINEAR,
    "antialias-bicubic": Image.Resampling.BICUBIC,
}


def resize_square(image: np.ndarray, size_px: int, interpolation: Interpolation = "antialias") -> np.ndarray:
    """Squeeze an image to a square, aspect ratio not kept.

    A triangle or cubic filter (Pillow's BILINEAR and BICUBIC) whose width follows the scale, so shrinking is
    antialiased; enlarging is plain bilinear or bicubic interpolation.

    Parameters
    ----------
    image : uint8 array of shape (height, width, 3).

    Returns
    -------
    uint8 array of shape (size_px, size_px, 3).
    """
    if image.shape[:2] == (size_px, size_px):
        return image
    # reducing_gap=None: one exact pass; the faster two-pass mode would change the pixels.
    resized = Image.fromarray(image).resize((size_px, size_px), FILTERS[interpolation], reducing_gap=None)
    return np.asarray(resized)


def to_field(image: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Bring an image to the size that crops are cut from: `field_px`, or without it the input's size.

    With `harmonise_px` every image goes to that size first, down or up, so that sharp and blurred sources
    arrive alike.

    Parameters
    ----------
    image : uint8 array of shape (height, width, 3), upright RGB as `images.read_image` returns it.

    Returns
    -------
    uint8 array of shape (field, field, 3).
    """
    if preprocessing.harmonise_px is not None:
        image = resize_square(image, preprocessing.harmonise_px, preprocessing.interpolation)
    size_px = preprocessing.field_px or preprocessing.input_size_px
    return resize_square(image, size_px, preprocessing.interpolation)


def to_input(image: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Bring an image to the size that the network was trained on, by way of its field (`to_field`).

    Parameters
    ----------
    image : uint8 array of shape (height, width, 3), upright RGB as `images.read_image` returns it.

    Returns
    -------
    uint8 array of shape (input_size_px, input_size_px, 3); mean and std are applied by the runtime.
    """
    return from_field(to_field(image, preprocessing), preprocessing)


def from_field(field: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """The input, uint8 (input_size_px, input_size_px, 3), of an image that `to_field` has prepared."""
    return resize_square(field, preprocessing.input_size_px, preprocessing.interpolation)


def decode_target_px(preprocessing: Preprocessing) -> int:
    """Pixels a side that reading has to leave (`read_image(target_px=...)`)."""
    return preprocessing.harmonise_px or preprocessing.field_px or preprocessing.input_size_px
