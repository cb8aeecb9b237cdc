"""What a caller may hand in to be predicted, as a stream of images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from skinlesion_cli.data.metadata import PatientMetadata
from skinlesion_cli.data.reading.images import check_not_blank
from skinlesion_cli.data.reading.inputs import ImageInput, expand, expand_bytes, identity, load
from skinlesion_cli.data.reading.limits import check_size
from skinlesion_cli.data.reading.loaded import LoadedImage
from skinlesion_cli.errors import UsageError

# What a caller of the Python interface may hand in.
ImageLike = str | os.PathLike[str] | bytes | np.ndarray | ImageInput


@dataclass(frozen=True)
class DecodedImage:
    """An image whose pixels were handed in: uint8 (height, width, 3), upright RGB; and what is known of the
    patient.
    """

    id: str
    pixels: np.ndarray
    patient: PatientMetadata | None = None


Source = ImageInput | DecodedImage


def load_source(source: Source, max_pixels: int, target_px: int) -> LoadedImage:
    """The pixels of a source, possibly at reduced scale (see `read_image`), and notes on how it was read.

    Raises
    ------
    ImageError : it was refused or cannot be read.
    """
    if isinstance(source, DecodedImage):
        height, width = source.pixels.shape[:2]
        check_size(width, height, max_pixels=max_pixels)
        check_not_blank(source.pixels)
        return LoadedImage(source.pixels)
    return load(source, max_pixels=max_pixels, target_px=target_px)


def sources_of(image: ImageLike, index: int) -> Iterator[Source]:
    """The images of what a caller handed in; `index` names those that have no name.

    Raises
    ------
    ValueError : an array that is not uint8 (height, width, 3).
    UsageError : a folder or archive without images.
    """
    if isinstance(image, ImageInput):
        yield image
        return
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"image {index}: expected uint8 (height, width, 3), got {image.dtype} {image.shape}"
            )
        yield DecodedImage(f"array {index}", image)
        return
    if isinstance(image, bytes):
        yield from expand_bytes(f"bytes {index}", image)
        return
    path = os.fspath(image)
    first = None
    for first in expand((), (path,)):
        yield first
    if first is None:
        raise UsageError(f"there are no images in {identity(path)}", "Name image files, folders or archives.")
