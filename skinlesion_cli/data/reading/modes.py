"""From the modes in which Pillow decodes to 8-bit RGB: explicitly,
or refused where the scale would be a guess.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, TiffImagePlugin

from skinlesion_cli.data.reading import colour
from skinlesion_cli.errors import ImageError

# Transparent parts are shown over white: of the two usual backgrounds the one nearer to skin.
_BACKGROUND = (255, 255, 255)
_WITH_ALPHA = ("RGBA", "LA", "La", "RGBa", "PA")
_WHITE_IS_ZERO = 0
# What TIFF calls grey (two ways), RGB, palette, CMYK, YCbCr and CIELab; not masks,
# sensor mosaics or linear raw.
_TIFF_PHOTOMETRIC = (0, 1, 2, 3, 5, 6, 8)
_UNSIGNED, _UNDEFINED = 1, 4


def to_rgb(image: Image.Image) -> tuple[np.ndarray, list[str]]:
    """A decoded image as uint8 (height, width, 3) sRGB, and notes on what was done to its colours.

    16-bit grey is scaled from the full range of its bits to 0..255; transparency is laid over white.

    Raises
    ------
    ImageError : `unsupported_mode`, where the range or meaning of the values is recorded nowhere.
    """
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        check_tiff_values(image)
    if image.mode in ("I", "F") and image.format != "PNG":
        raise ImageError(
            "unsupported_mode", f"{image.format} with 32-bit pixels: the range of values is unknown"
        )
    profile = image.info.get("icc_profile")
    if image.mode == "CMYK":
        return _from_cmyk(np.asarray(image), profile)
    notes: list[str] = []
    if image.mode.startswith("I"):
        top, inverted = _grey_range(image)
        grey = _in_strips(image, lambda part: _scaled(part, top, inverted), 1)
        if top == 65535 and (highest := _highest(image)) < 32768:
            notes.append(
                f"grey values reach {highest} of {top} only: the bits that are used may be fewer than 16"
            )
        return _in_profile(grey, profile, notes)
    if image.mode in ("L", "1") and "transparency" not in image.info:
        return _in_profile(_in_strips(image, lambda part: np.asarray(part.convert("L")), 1), profile, notes)
    pixels = _in_strips(image, _strip_to_rgb(image), 3)
    if profile and image.mode != "LAB":
        converted, more = colour.from_profile(pixels, profile)
        return converted, notes + more
    if image.format == "PNG":
        converted, more = colour.from_png_chunks(pixels, image.info)
        return converted, notes + more
    return pixels, notes


def from_cmyk(pixels: np.ndarray, profile: bytes | None) -> tuple[np.ndarray, list[str]]:
    """CMYK, uint8 (height, width, 4) where 255 is full ink, as `to_rgb` returns it."""
    return _from_cmyk(pixels, profile)


def check_tiff_values(image: TiffImagePlugin.TiffImageFile) -> None:
    """Refuse pages whose values Pillow would take for others: signed, real, raw from a sensor, masks.

    Raises
    ------
    ImageError : `unsupported_mode`.
    """
    tags = image.tag_v2
    formats = tags.get(339, (_UNSIGNED,))
    formats = formats if isinstance(formats, tuple) else (formats,)
    if any(kind not in (_UNSIGNED, _UNDEFINED) for kind in formats):
        raise ImageError(
            "unsupported_mode", "a TIFF with signed or floating-point values: their range is unknown"
        )
    photometric = tags.get(262, 1)
    if photometric not in _TIFF_PHOTOMETRIC:
        raise ImageError(
            "unsupported_mode",
            f"a TIFF of photometric interpretation {photometric}; export it with RGB colours",
        )


def _grey_range(image: Image.Image) -> tuple[int, bool]:
    """The value of full scale, and whether 0 is white."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 65535, False
    bits = image.tag_v2.get(258, 16)
    depth = int(bits[0] if isinstance(bits, tuple) else bits)
    return (1 << min(depth, 16)) - 1, image.tag_v2.get(262) == _WHITE_IS_ZERO


def _scaled(part: Image.Image, top: int, inverted: bool) -> np.ndarray:
    values = np.minimum(np.asarray(part).astype(np.uint32), top)
    values = top - values if inverted else values
    return ((values * 255 + top // 2) // top).astype(np.uint8)


def _highest(image: Image.Image) -> int:
    extrema = image.getextrema()
    return int(extrema[1]) if isinstance(extrema[1], (int, float)) else 65535


def _in_strips(image: Image.Image, convert: Callable[[Image.Image], np.ndarray], channels: int) -> np.ndarray:
    """Convert strip by strip, so that copies in other modes stay small beside the image."""
    width, height = image.size
    result = np.empty((height, width, channels) if channels > 1 else (height, width), np.uint8)
    for rows in colour.strips(height, width):
        result[rows] = convert(image.crop((0, rows.start, width, rows.stop)))
    return result


def _strip_to_rgb(image: Image.Image) -> Callable[[Image.Image], np.ndarray]:
    if image.mode not in _WITH_ALPHA and "transparency" not in image.info:
        return lambda part: np.asarray(part.convert("RGB"))
    if image.format == "BMP" and image.getextrema()[-1] == (0, 0):
        # Many programs leave the fourth byte of 32-bit pixels at 0 and mean no transparency by it.
        return lambda part: np.asarray(part)[..., :3]

    def over_background(part: Image.Image) -> np.ndarray:
        layered = part.convert("RGBA")
        flat = Image.new("RGBA", layered.size, (*_BACKGROUND, 255))
        flat.alpha_composite(layered)
        return np.asarray(flat.convert("RGB"))

    return over_background


def _in_profile(grey: np.ndarray, profile: bytes | None, notes: list[str]) -> tuple[np.ndarray, list[str]]:
    """Grey uint8 (height, width) as RGB, through its profile of grey or of RGB."""
    if profile:
        converted, more = colour.from_profile(grey, profile)
        if converted.ndim == 3:
            return converted, notes + more
        pixels, of_rgb = colour.from_profile(_repeated(grey), profile)
        return pixels, notes + (more if of_rgb and "ignored" in of_rgb[0] else of_rgb)
    return _repeated(grey), notes


def _repeated(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=-1)


def _from_cmyk(pixels: np.ndarray, profile: bytes | None) -> tuple[np.ndarray, list[str]]:
    notes: list[str] = []
    if profile:
        converted, notes = colour.from_profile(pixels, profile)
        if converted.shape[2] == 3:
            return converted, notes
    result = np.empty((*pixels.shape[:2], 3), np.uint8)
    for rows in colour.strips(*pixels.shape[:2]):
        result[rows] = np.asarray(Image.fromarray(np.ascontiguousarray(pixels[rows]), "CMYK").convert("RGB"))
    return result, [*notes, "CMYK without a usable profile: colours are approximate"]
