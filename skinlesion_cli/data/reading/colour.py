"""Colours brought to sRGB: embedded profiles, the colour chunks of PNG, coding-independent code points.

Training and prediction read through here, so that a network sees the same colours in both. What cannot be
used is a note and leaves the values as they are: a broken profile says nothing about the pixels.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final

import numpy as np
from PIL import Image, ImageCms

from skinlesion_cli.errors import ImageError

# Rows that are converted at a time: the copies stay small beside the image.
_STRIP_PIXELS = 1 << 20
_MAX_PROFILE_BYTES = 8 << 20
# Levels of 255 by which a profile may differ from sRGB everywhere and still count as sRGB.
_SAME_LEVELS = 2
# Chromaticities of white, red, green and blue. ITU-R BT.709 (sRGB), SMPTE EG 432-1 (Display P3), BT.2020.
_SRGB: Final = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
_PRIMARIES: Final = {
    1: _SRGB,
    9: (0.3127, 0.329, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046),
    12: (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
}
# Transfer characteristics of ITU-T H.273 that are those of sRGB or so near that nobody tells them apart.
_LIKE_SRGB = (1, 2, 6, 13, 14, 15)
_UNSPECIFIED = 2
_CHROMATICITY_TOLERANCE, _GAMMA_TOLERANCE = 0.005, 0.01
_SRGB_GAMMA = 0.45455


def strips(height: int, width: int) -> Iterator[slice]:
    """Slices of rows of about a megapixel."""
    step = max(1, _STRIP_PIXELS // max(1, width))
    return (slice(top, min(top + step, height)) for top in range(0, height, step))


def from_profile(pixels: np.ndarray, profile: bytes) -> tuple[np.ndarray, list[str]]:
    """Convert values by the ICC profile that the file embeds.

    Parameters
    ----------
    pixels : uint8 (height, width, 3) RGB, (height, width) grey, or (height, width, 4)
        CMYK where 255 is full ink.
    profile : the embedded profile.

    Returns
    -------
    uint8 (height, width, 3) sRGB, or `pixels` itself where the profile is sRGB or cannot be used; and notes.
    """
    mode = "L" if pixels.ndim == 2 else {3: "RGB", 4: "CMYK"}[pixels.shape[2]]
    if len(profile) > _MAX_PROFILE_BYTES:
        return pixels, ["colour profile ignored: too large"]
    convert, name = _transform(profile, mode)
    if convert is None:
        return pixels, [name] if name else []
    result = np.empty((*pixels.shape[:2], 3), np.uint8)
    for rows in strips(*pixels.shape[:2]):
        result[rows] = convert(pixels[rows])
    return result, [f"colours converted from {name} to sRGB"]


@lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> tuple[Callable[[np.ndarray], np.ndarray] | None, str]:
    """How to convert, and the profile's name; None and a note where there is nothing to do."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = " ".join(ImageCms.getProfileDescription(source).split())[:60] or "an unnamed profile"
        space = source.profile.xcolor_space.strip()
        if space != {"L": "GRAY"}.get(mode, mode):
            return None, f"colour profile ignored: it is for {space}, the image is {mode}"
        transform = ImageCms.buildTransform(
            source,
            _srgb_profile(),
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )

        def convert(values: np.ndarray) -> np.ndarray:
            return np.asarray(
                ImageCms.applyTransform(Image.fromarray(np.ascontiguousarray(values), mode), transform)
            )

        if mode != "CMYK" and _is_identity(convert, mode):
            return None, ""
        return convert, name
    except Exception as error:
        # A broken profile raises OSError, PyCMSError, ValueError or worse, by where it is broken.
        return None, f"colour profile ignored: it cannot be used ({str(error)[:80]})"


def _srgb_profile() -> Any:
    return ImageCms.createProfile("sRGB")


def _is_identity(convert: Callable[[np.ndarray], np.ndarray], mode: str) -> bool:
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    if mode == "L":
        grid = steps[None]
        expected = np.repeat(grid[..., None], 3, axis=-1)
    else:
        grid = expected = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(1, -1, 3)
    return int(np.abs(convert(grid).astype(int) - expected).max()) <= _SAME_LEVELS


def from_png_chunks(pixels: np.ndarray, info: dict[Any, Any]) -> tuple[np.ndarray, list[str]]:
    """Convert by the chunks gAMA and cHRM, where there is neither a profile nor the chunk sRGB.

    Parameters
    ----------
    pixels : uint8 (height, width, 3). info : as Pillow gives it: `gamma`, `chromaticity`, `srgb`.
    """
    gamma, chromaticity = info.get("gamma"), info.get("chromaticity")
    if "srgb" in info or gamma is None:
        return pixels, []
    if not 0.05 <= gamma <= 5.0:
        return pixels, [f"gamma {gamma:g} of the PNG ignored: out of range"]
    white = tuple(chromaticity) if chromaticity else _SRGB
    near = all(abs(a - b) <= _CHROMATICITY_TOLERANCE for a, b in zip(white, _SRGB, strict=False))
    if near and abs(gamma - _SRGB_GAMMA) <= _GAMMA_TOLERANCE:
        return pixels, []
    try:
        matrix = np.eye(3) if near else _to_srgb(white)
    except (np.linalg.LinAlgError, ValueError, ZeroDivisionError):
        return pixels, ["colour chunks of the PNG ignored: they describe no colour space"]
    linear = (np.arange(256) / 255.0) ** (1.0 / gamma)
    return _through_linear(pixels, linear, matrix), ["colours converted by the PNG's gAMA and cHRM to sRGB"]


def from_code_points(pixels: np.ndarray, primaries: int, transfer: int) -> tuple[np.ndarray, list[str]]:
    """Convert by code points of ITU-T H.273, as AVIF, HEIF and PNG's cICP have them.

    Raises
    ------
    ImageError : `unsupported_mode` for high dynamic range, whose scale to 8 bits is a matter of taste.
    """
    if transfer in (16, 18):
        raise ImageError(
            "unsupported_mode", "a high dynamic range image; export it with sRGB colours and 8 bits"
        )
    if primaries in (1, _UNSPECIFIED) or (primaries == 11 and transfer == _UNSPECIFIED):
        return pixels, []
    space = _PRIMARIES.get(primaries)
    if space is None or transfer not in _LIKE_SRGB:
        return pixels, [
            f"colour space ignored: primaries {primaries} with transfer {transfer} are not known here"
        ]
    values = np.arange(256) / 255.0
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    name = {9: "BT.2020", 12: "Display P3"}[primaries]
    converted = _through_linear(pixels, linear, _to_srgb(space))
    return converted, [f"colours converted from {name} to sRGB"]


def _to_srgb(chromaticities: tuple[float, ...]) -> np.ndarray:
    """Matrix from linear RGB of these primaries to linear sRGB, float64 (3, 3); white stays white."""
    source, source_white = _to_xyz(chromaticities)
    target, target_white = _to_xyz(_SRGB)
    matrix: np.ndarray = np.linalg.inv(target) @ np.diag(target_white / source_white) @ source
    if not np.isfinite(matrix).all():
        raise ValueError("no chromaticities")
    return matrix


def _to_xyz(chromaticities: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Matrix from linear RGB to CIE XYZ, float64 (3, 3), and the XYZ of white."""
    xy = np.array(chromaticities, dtype=np.float64).reshape(4, 2)
    if (xy[:, 1] <= 0).any():
        raise ValueError("no chromaticities")
    xyz = np.stack([xy[:, 0] / xy[:, 1], np.ones(4), (1 - xy[:, 0] - xy[:, 1]) / xy[:, 1]], axis=1)
    primaries = xyz[1:].T
    return primaries * np.linalg.solve(primaries, xyz[0]), xyz[0]


def _through_linear(pixels: np.ndarray, linear: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Values to linear light by a table of 256, through a matrix,
    and to sRGB by its curve (IEC 61966-2-1).
    """
    result = np.empty_like(pixels)
    table, mixing = linear.astype(np.float32), matrix.T.astype(np.float32)
    for rows in strips(*pixels.shape[:2]):
        light = np.clip(table[pixels[rows]] @ mixing, 0.0, 1.0)
        encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
        result[rows] = (encoded * 255.0 + 0.5).astype(np.uint8)
    return result
