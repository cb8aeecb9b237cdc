"""A map laid over its image, at the image's own size and orientation; small images are enlarged.

Everything goes through lookup tables of 256 steps and OpenCV: an overlay costs two or three milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from skinlesion_cli.explain.cam import resized
from skinlesion_cli.explain.opencv import opencv

STYLES: Final = ("overlay", "contour", "side-by-side")
_MAX_ALPHA = 0.62
_LEVELS = (0.25, 0.5, 0.75)
_HALF = (0.5,)
# The shorter side of a drawing, unless the longer one would become longer than the second number.
MIN_SIDE_PX: Final = 400
_MAX_ENLARGED_PX = 4000
_UNDER_LEGEND = (226, 200, 188)  # some skin
_INK, _FAINT = (20, 20, 20), (110, 110, 110)


@dataclass(frozen=True)
class Caption:
    """What the colours cannot say. `titles` are the same statement, longest first; the first that fits is
    used. `magnitude` is the map's maximum, in `unit`; an empty unit is one without a name."""

    titles: tuple[str, ...]
    magnitude: float
    unit: str = ""


@cache
def _ramp() -> np.ndarray:
    """The colour map, uint8 (256, 3)."""
    cv2 = opencv()
    # Viridis: perceptually uniform, and far from the hues of skin.
    bgr = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)
    return np.ascontiguousarray(bgr[:, 0, ::-1])


@cache
def _mixture() -> tuple[np.ndarray, np.ndarray]:
    """At each step of the map, what is kept of the image, uint8 (256,), of 255; and the colour, as much as
    of it is added, uint8 (256, 1, 3)."""
    # Weak places stay uncovered, so that the lesion itself can be seen.
    opacity = np.rint(255 * _MAX_ALPHA * np.linspace(0.0, 1.0, 256) ** 0.8)
    added = np.rint(_ramp() * opacity[:, None] / 255)
    return (255 - opacity).astype(np.uint8), added.astype(np.uint8)[:, None]


def steps(heat: np.ndarray, width: int, height: int) -> np.ndarray:
    """The map scaled to its own maximum at this size: uint8 (height, width), 255 at the strongest place."""
    top = float(heat.max())
    if top <= 0.0:
        return np.zeros((height, width), np.uint8)
    grown = resized(heat * (255.0 / top), width, height, Image.Resampling.BICUBIC)
    np.clip(grown, 0.0, 255.0, out=grown)
    grown += 0.5
    result: np.ndarray = grown.astype(np.uint8)
    return result


def blend(image: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Strong places in colour, the rest as it is: uint8 like `image`; `strength` as `steps` gives it."""
    cv2 = opencv()
    kept, added = _mixture()
    share = cv2.cvtColor(cv2.LUT(strength, kept), cv2.COLOR_GRAY2RGB)
    result: np.ndarray = cv2.multiply(image, share, scale=1 / 255)
    return cv2.add(result, cv2.applyColorMap(strength, added), dst=result)  # type: ignore[no-any-return]


def contours(
    image: np.ndarray,
    strength: np.ndarray,
    levels: tuple[float, ...] = _LEVELS,
    colour: tuple[int, int, int] | None = None,
) -> np.ndarray:
    """Lines at shares of the maximum, in one colour or in those of the map; every other pixel as it is."""
    drawn = image.copy()
    line_px = max(1, round(min(image.shape[:2]) / 250))
    for level in levels:
        inside = strength >= round(level * 255)
        edge = np.zeros_like(inside)
        np.not_equal(inside[:-1], inside[1:], out=edge[:-1])
        edge[:, :-1] |= inside[:, :-1] != inside[:, 1:]
        for _ in range(line_px - 1 if colour else line_px):
            wider = edge.copy()
            wider[1:] |= edge[:-1]
            wider[:, 1:] |= edge[:, :-1]
            edge = wider
        # Far faster than a mask of all pixels, where few are chosen.
        drawn.reshape(-1, 3)[np.flatnonzero(edge)] = colour or _ramp()[round(level * 255)]
    return drawn


def render(image: np.ndarray, heat: np.ndarray, caption: Caption, style: str = "overlay") -> np.ndarray:
    """The picture with a caption strip below it, so that nothing of the image is covered by text.

    Parameters
    ----------
    image : uint8 (height, width, 3). heat : float (h, w), >= 0, any scale; scaled to its own maximum.
    style : one of `STYLES`. `side-by-side` has the image itself on the left.

    Returns
    -------
    uint8 (height, width, 3). Where the image has at least `MIN_SIDE_PX` on its shorter side, the first rows
        are the image at its own size, pixel on pixel; a smaller one is enlarged to that.
    """
    image = enlarged(image)
    height, width = image.shape[:2]
    strength = steps(heat, width, height)
    if style == "contour":
        picture = contours(image, strength)
    elif style == "side-by-side":
        picture = np.concatenate([image, _with_half(image, strength)], axis=1)
    else:
        picture = _with_half(image, strength)
    strip = _strip(picture.shape[1], caption, contour=style == "contour")
    return np.concatenate([picture, np.asarray(strip)])


def enlarged(image: np.ndarray) -> np.ndarray:
    """An image, uint8 (height, width, 3), with at least `MIN_SIDE_PX` on its shorter side, unless that would
    make the longer one very long."""
    height, width = image.shape[:2]
    factor = min(MIN_SIDE_PX / min(height, width), _MAX_ENLARGED_PX / max(height, width))
    if factor <= 1:
        return image
    size = round(width * factor), round(height * factor)
    cv2 = opencv()
    result: np.ndarray = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    return result


def _with_half(image: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """The map in colours, and a white line around what has at least half of its maximum."""
    coloured = blend(image, strength)
    return contours(coloured, strength, _HALF, (255, 255, 255)) if strength.any() else coloured


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)


def _strip(width: int, caption: Caption, *, contour: bool) -> Image.Image:
    """Title, and under it the legend: the colours from 0 to the map's maximum."""
    font = _font(max(width // 36, 14))
    ascent_px = round(font.getbbox("Ag")[3])
    gap = max(3, ascent_px // 4)
    strip = Image.new("RGB", (width, 2 * ascent_px + 4 * gap), "white")
    pen = ImageDraw.Draw(strip)
    title = next(
        (text for text in caption.titles if pen.textlength(text, font=font) <= width - 2 * gap),
        caption.titles[-1],
    )
    pen.text((gap, gap), title, fill=_INK, font=font)
    top = ascent_px + 3 * gap
    if caption.magnitude <= 0.0:
        pen.text((gap, top - gap), "all zero: no place speaks for it", fill=(176, 0, 32), font=font)
        return strip
    right = f"{caption.magnitude:.2g} {caption.unit}".rstrip()
    left_px, right_px = pen.textlength("0", font=font), pen.textlength(right, font=font)
    start, stop = round(left_px + 2 * gap), round(width - right_px - 2 * gap)
    pen.text((gap, top - gap), "0", fill=_FAINT, font=font)
    pen.text((width - right_px - gap, top - gap), right, fill=_FAINT, font=font)
    if stop - start >= 8:
        strip.paste(_legend(stop - start, ascent_px, contour=contour), (start, top - gap + 1))
    return strip


@lru_cache(maxsize=64)
def _legend(width: int, height: int, *, contour: bool) -> Image.Image:
    """The colours from 0 to the maximum, with a mark at every level that is drawn as a line."""
    # As the picture shows them: a legend of pure colours would be of another picture.
    bar = np.arange(256, dtype=np.uint8)[None]
    colours = _ramp()[bar] if contour else blend(np.full((1, 256, 3), _UNDER_LEGEND, np.uint8), bar)
    legend = Image.fromarray(colours).resize((width, height))
    pen = ImageDraw.Draw(legend)
    for level in _LEVELS if contour else _HALF:
        x = round(level * width)
        pen.line((x, 0, x, height - 1), fill="white", width=max(1, height // 8))
    return legend
