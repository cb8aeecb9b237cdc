"""One frame of a DICOM data set as sRGB: the frame is checked to be whole, decoded,
and its values interpreted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from skinlesion_cli.data.reading import colour
from skinlesion_cli.data.reading.completeness import refuse_holes
from skinlesion_cli.data.reading.jpeg import check_scans, decode_jpeg, is_ycc, read_header
from skinlesion_cli.data.reading.limits import check_size
from skinlesion_cli.data.reading.loaded import LoadedImage
from skinlesion_cli.errors import ImageError

_JPEG_2000_COST = 4


@dataclass(frozen=True)
class Codec:
    """How the frames of a transfer syntax are decoded.

    `plugin` is pydicom's name of the decoder, `package` what has to be installed for it. `family` tells how a
    frame is checked: `jpeg`, `lossless`, `jpeg_ls`, `jpeg_2000`, or `rle`, which pydicom checks itself.
    """

    name: str
    family: str
    plugin: str
    package: str


_JPEG = Codec("JPEG", "jpeg", "pillow", "pillow")
_LOSSLESS = Codec("JPEG lossless", "lossless", "gdcm", "python-gdcm")
_JPEG_LS = Codec("JPEG-LS", "jpeg_ls", "pyjpegls", "pyjpegls")
_JPEG_2000 = Codec("JPEG 2000", "jpeg_2000", "pylibjpeg", "pylibjpeg-openjpeg")
_HTJ2K = Codec("HTJ2K", "jpeg_2000", "pylibjpeg", "pylibjpeg-openjpeg")
_PREFIX: Final = "1.2.840.10008.1.2."
# By the end of the transfer syntax; `None` is uncompressed.
CODECS: Final[dict[str, Codec | None]] = {
    **dict.fromkeys(("", "1", "2"), None),
    "5": Codec("RLE", "rle", "pydicom", "pydicom"),
    "4.50": _JPEG,
    "4.51": _JPEG,
    "4.57": _LOSSLESS,
    "4.70": _LOSSLESS,
    "4.80": _JPEG_LS,
    "4.81": _JPEG_LS,
    "4.90": _JPEG_2000,
    "4.91": _JPEG_2000,
    "4.201": _HTJ2K,
    "4.202": _HTJ2K,
    "4.203": _HTJ2K,
}
_GREY: Final = ("MONOCHROME1", "MONOCHROME2")
# What pydicom converts to RGB: YBR_ICT and YBR_RCT are undone by the JPEG 2000 decoder.
_COLOUR: Final = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def decodable() -> dict[str, bool]:
    """Name of each way in which DICOM pixels are compressed -> whether a decoder for it is installed."""
    return {codec.name: _is_available(codec) for codec in CODECS.values() if codec is not None}


def frame_pixels(dataset: Any, frame: int, max_pixels: int) -> LoadedImage:
    """Frame `frame` (from 1) of a data set as sRGB.

    Raises
    ------
    ImageError : `unsupported_mode`, `unsupported_codec`, `needs_extra`, `truncated`, `damaged` or
        `too_large`. What decoders raise comes out as it is.
    """
    photometric = str(dataset.get("PhotometricInterpretation", "")).strip()
    samples = int(dataset.get("SamplesPerPixel", 1))
    if photometric not in (*_GREY, *_COLOUR, "PALETTE COLOR"):
        raise ImageError("unsupported_mode", f"DICOM with {photometric or 'unnamed'} pixels is not read")
    if samples != (3 if photometric in _COLOUR else 1):
        raise ImageError("unsupported_mode", f"DICOM with {photometric} pixels of {samples} samples")
    syntax = str(getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", "") or _PREFIX.rstrip("."))
    codec = _codec(syntax)
    if photometric in ("YBR_ICT", "YBR_RCT") and (codec is None or codec.family != "jpeg_2000"):
        raise ImageError("unsupported_mode", f"DICOM with {photometric} pixels that are not JPEG 2000")
    values = _decoded(dataset, codec, frame, max_pixels)
    if photometric == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        values = apply_color_lut(values, dataset)
        values = (values // 257).astype(np.uint8) if values.dtype == np.uint16 else values
    elif photometric in _GREY:
        values = _grey(values, dataset, photometric, as_stored=codec is None or codec.family == "rle")
    if values.ndim != 3 or values.shape[-1] != 3 or values.dtype != np.uint8:
        raise ImageError("unsupported_mode", f"DICOM with {photometric} pixels of {values.dtype}")
    stored = int(dataset.get("BitsStored", 8))
    if photometric in _COLOUR and stored < 8:
        values = (values.astype(np.uint16) * 255 // ((1 << stored) - 1)).clip(0, 255).astype(np.uint8)
    return _in_srgb(np.ascontiguousarray(values), dataset)


def _in_srgb(pixels: np.ndarray, dataset: Any) -> LoadedImage:
    profile = dataset.get("ICCProfile")
    paths = dataset.get("OpticalPathSequence")
    if profile is None and paths:
        profile = paths[0].get("ICCProfile")
    if not profile:
        return LoadedImage(pixels)
    converted, notes = colour.from_profile(pixels, bytes(profile))
    return LoadedImage(converted, tuple(notes))


def _grey(values: np.ndarray, dataset: Any, photometric: str, *, as_stored: bool) -> np.ndarray:
    """Values, uint8 or uint16 (height, width), as grey RGB.

    `as_stored`: the bits stand where `HighBit` says; decoders of other compressions put them lowest.
    """
    if int(dataset.get("PixelRepresentation", 0)) != 0:
        raise ImageError("unsupported_mode", "DICOM with signed grey values: their range is unknown")
    stored, allocated = int(dataset.BitsStored), int(dataset.BitsAllocated)
    high = int(dataset.get("HighBit", stored - 1)) if as_stored else stored - 1
    if not 1 <= stored <= allocated <= 16 or not stored - 1 <= high < allocated:
        raise ImageError("unsupported_mode", f"DICOM with {stored} bits of {allocated}, the highest {high}")
    top = (1 << stored) - 1
    result = np.empty((*values.shape, 3), np.uint8)
    for rows in colour.strips(*values.shape):
        # Bits above and below the stored ones may hold anything.
        grey = ((values[rows].astype(np.uint32) >> (high + 1 - stored)) & top) * 255 / top
        grey = 255.0 - grey if photometric == "MONOCHROME1" else grey
        result[rows] = grey.round().astype(np.uint8)[..., None]
    return result


def _codec(syntax: str) -> Codec | None:
    end = f"{syntax}.".removeprefix(_PREFIX).rstrip(".")
    if not syntax.startswith(_PREFIX.rstrip(".")) or end not in CODECS:
        raise ImageError(
            "unsupported_codec",
            f"DICOM with transfer syntax {syntax} is not read; convert it, for example with `dcmconv` or "
            "`gdcmconv --raw`",
        )
    return CODECS[end]


def _is_available(codec: Codec) -> bool:
    from importlib.util import find_spec

    module = {"pylibjpeg-openjpeg": "openjpeg", "pyjpegls": "jpeg_ls", "python-gdcm": "gdcm", "pillow": "PIL"}
    return find_spec(module.get(codec.package, codec.package)) is not None


def _decoded(dataset: Any, codec: Codec | None, frame: int, max_pixels: int) -> np.ndarray:
    """Values of a frame: uint8 (height, width, 3) RGB, or (height, width) as stored."""
    from pydicom.pixels import pixel_array

    if codec is None or codec.family == "rle":
        _check_conversion(dataset, max_pixels)
        # pydicom would clear the bits above `BitsStored`, wherever `HighBit` says that they are.
        stored: np.ndarray = pixel_array(dataset, index=frame - 1, correct_unused_bits=False)
        return stored
    pixels = _checked(dataset, codec, frame, max_pixels)
    if pixels is not None:
        return pixels
    _check_conversion(dataset, max_pixels)
    if not _is_available(codec):
        raise ImageError(
            "needs_extra",
            f"DICOM compressed by {codec.name} needs `pip install 'skinlesion[dicom]'` ({codec.package})",
        )
    decoded: np.ndarray = pixel_array(dataset, index=frame - 1, decoding_plugin=codec.plugin)
    return decoded


def _check_conversion(dataset: Any, max_pixels: int) -> None:
    """pydicom converts colours in floating point, all of the image at once."""
    photometric = str(dataset.PhotometricInterpretation)
    cost = 4 if photometric.startswith("YBR_FULL") else 2 if photometric == "PALETTE COLOR" else 1
    check_size(
        int(dataset.Columns),
        int(dataset.Rows),
        max_pixels=max_pixels,
        cost=cost,
        kind=f"DICOM in {photometric}",
    )


def _checked(dataset: Any, codec: Codec, frame: int, max_pixels: int) -> np.ndarray | None:
    """Refuse a compressed frame that is not whole; its pixels where they came out on the way.

    pydicom's decoders would fill in the rest of a JPEG, and take holes in JPEG 2000 for flat areas; its own
    decoder of RLE counts the bytes.
    """
    from pydicom.encaps import get_frame

    frames = int(dataset.get("NumberOfFrames") or 1)
    data = bytes(get_frame(dataset.PixelData, frame - 1, number_of_frames=frames))
    height, width = int(dataset.Rows), int(dataset.Columns)
    if codec.family == "jpeg_2000":
        _check_jpeg_2000(data, width, height, max_pixels)
        return None
    header = read_header(data)
    if (header.width, header.height) != (width, height):
        raise ImageError(
            "damaged",
            f"the image is damaged: {width} x {height} pixels are announced, {header.width} x "
            f"{header.height} coded",
        )
    if codec.family == "jpeg_ls":
        refuse_holes(data, 0, len(data))
        return None
    check_scans(data, header)
    if header.bits > 8:
        return None
    pixels = decode_jpeg(data, header)
    if len(header.components) == 1:
        return pixels[..., 0]
    photometric = str(dataset.PhotometricInterpretation)
    if codec.family == "lossless":
        return pixels if photometric == "RGB" and not header.jfif else None
    marked = header.jfif or header.adobe is not None
    # Without a mark of its own the frame is what the file says, and the decoder took it for YCbCr.
    return pixels if marked or photometric.startswith("YBR") == is_ycc(header) else None


def _check_jpeg_2000(data: bytes, width: int, height: int, max_pixels: int) -> None:
    start = data.find(b"\xff\x4f\xff\x51")
    size = data[start + 8 : start + 24]
    if start < 0 or len(size) < 16:
        raise ImageError("damaged", "the image is damaged: there is no JPEG 2000 codestream")
    right, bottom, left, top = (int.from_bytes(size[at : at + 4], "big") for at in (0, 4, 8, 12))
    if (right - left, bottom - top) != (width, height):
        raise ImageError(
            "damaged",
            f"the image is damaged: {width} x {height} pixels are announced, {right - left} x "
            f"{bottom - top} coded",
        )
    check_size(width, height, max_pixels=max_pixels, cost=_JPEG_2000_COST, kind="JPEG 2000")
    refuse_holes(data, start, len(data))
