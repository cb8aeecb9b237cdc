"""Dermoscopic images in DICOM files (`pip install 'skinlesion[dicom]'`)."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from skinlesion_cli.data.reading.limits import MAX_FILE_BYTES, MAX_PIXELS, MIN_SIDE_PX
from skinlesion_cli.errors import ImageError

DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
_PREAMBLE_BYTES = 128


def looks_like_dicom(source: Path | bytes) -> bool:
    """Whether content handed in memory is DICOM by its magic bytes; files go by their names."""
    return isinstance(source, bytes) and source[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] == b"DICM"


def read_dicom(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The first frame of a DICOM image as RGB.

    Returns
    -------
    uint8 array of shape (height, width, 3). Colour is converted from the file's photometric interpretation;
    grey values are scaled from the stored range (`BitsStored`) to 0..255, MONOCHROME1 is inverted.

    Raises
    ------
    ImageError : pydicom is not installed, or the file is damaged, holds no image, or is too large or small.
    """
    try:
        import pydicom
    except ImportError:
        raise ImageError(
            "needs_extra", "this is a DICOM file; reading it needs `pip install 'skinlesion[dicom]'`"
        ) from None
    if isinstance(source, Path) and not source.is_file():
        reason = ("missing", "the file is not there") if not source.exists() else ("not_a_file", "not a file")
        raise ImageError(*reason)
    if isinstance(source, Path) and source.stat().st_size > MAX_FILE_BYTES:
        raise ImageError("too_large", f"the file has more than {MAX_FILE_BYTES:,} bytes")
    try:
        dataset = pydicom.dcmread(io.BytesIO(source) if isinstance(source, bytes) else source)
        width, height = int(dataset.Columns), int(dataset.Rows)
    except OSError as error:
        raise ImageError("unreadable", f"cannot be opened: {error.strerror or error}") from None
    except Exception as error:
        raise ImageError("not_an_image", f"this is no DICOM image: {error}") from None
    if width * height > max_pixels:
        raise ImageError("too_large", f"the image has {width} x {height} pixels; the limit is {max_pixels:,}")
    if min(width, height) < MIN_SIDE_PX:
        raise ImageError("too_small", f"the image has {width} x {height} pixels; {MIN_SIDE_PX} are needed")
    try:
        return _pixels(dataset)
    except ImageError:
        raise
    except Exception as error:
        # pydicom and the decoders behind it raise nearly anything on damaged pixel data.
        raise ImageError("damaged", f"the pixels cannot be decoded: {error}") from None


def _pixels(dataset: Any) -> np.ndarray:
    from pydicom.pixels import apply_color_lut, pixel_array

    photometric = str(dataset.PhotometricInterpretation)
    # pixel_array converts YBR to RGB and undoes planar storage.
    frame = pixel_array(dataset, index=0)
    if photometric == "PALETTE COLOR":
        frame = apply_color_lut(frame, dataset)
        frame = (frame // 257).astype(np.uint8) if frame.dtype == np.uint16 else frame
    elif photometric in ("MONOCHROME1", "MONOCHROME2"):
        if int(dataset.get("PixelRepresentation", 0)) != 0:
            raise ImageError("unsupported_mode", "DICOM with signed grey values: their range is unknown")
        top = (1 << int(dataset.BitsStored)) - 1
        grey = np.clip(frame.astype(np.float64) / top, 0.0, 1.0)
        grey = 1.0 - grey if photometric == "MONOCHROME1" else grey
        frame = np.repeat((grey * 255.0).round().astype(np.uint8)[..., None], 3, axis=-1)
    if frame.ndim != 3 or frame.shape[-1] != 3 or frame.dtype != np.uint8:
        raise ImageError("unsupported_mode", f"DICOM with {photometric} pixels of {frame.dtype}")
    return np.ascontiguousarray(frame)
