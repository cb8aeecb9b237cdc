"""Artefacts of dermoscopic images, drawn at random: hair, rulers, ink, stickers, vignettes, colour casts.

The photographs of one clinic show some of these and not others, and a network trained on them can mistake
their presence or absence for evidence. Drawn at random over images of all classes they carry no information.
Every function takes and returns uint8 (h, w, 3), RGB, and draws from the generator that it is given.
"""

from __future__ import annotations

from collections.abc import Callable

import albumentations as A
import cv2
import numpy as np

Draw = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def hair(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """3 to 24 hairs: dark, sometimes light, quadratic curves of up to a hundredth of the image's side."""
    height, width = image.shape[:2]
    # Drawn at four times the size and reduced, so that a hair may be thinner than a pixel.
    scale = 4
    mask = np.zeros((height * scale, width * scale), dtype=np.uint8)
    steps = np.linspace(0.0, 1.0, 24)[:, None]
    for _ in range(int(rng.integers(3, 25))):
        start = rng.uniform(-0.1, 1.1, 2)
        angle, length = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.15, 0.9)
        end = start + length * np.array([np.cos(angle), np.sin(angle)])
        control = (start + end) / 2 + rng.normal(0.0, 0.15 * length, 2)
        curve = (1 - steps) ** 2 * start + 2 * steps * (1 - steps) * control + steps**2 * end
        points = np.round(curve * (width * scale, height * scale)).astype(np.int32)
        thickness = max(1, round(rng.uniform(0.003, 0.01) * scale * min(height, width)))
        cv2.polylines(mask, [points], isClosed=False, color=255, thickness=thickness, lineType=cv2.LINE_AA)
    cover = (
        cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)[..., None] / 255.0
    )
    tone = rng.uniform(150.0, 215.0) if rng.random() < 0.15 else rng.uniform(5.0, 75.0)
    colour = np.clip(tone * np.array([1.1, 0.95, 0.85]), 0.0, 255.0)
    return _blend(image, colour, cover * rng.uniform(0.6, 0.95))


def ruler(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Ticks of a ruler along one edge, every fifth of them longer."""
    side = int(rng.integers(0, 4))
    turned = np.ascontiguousarray(np.rot90(image, side))
    height, width = turned.shape[:2]
    cover = np.zeros((height, width), dtype=np.float32)
    baseline = round(rng.uniform(0.02, 0.2) * height)
    gap_px = rng.uniform(0.02, 0.08) * width
    short_px, thickness = rng.uniform(0.02, 0.05) * height, max(1, round(0.006 * width))
    for index, x in enumerate(np.arange(rng.uniform(0, gap_px), width, gap_px)):
        end = baseline + round(short_px * (2.0 if index % 5 == 0 else 1.0))
        cv2.line(cover, (round(x), baseline), (round(x), end), 1.0, thickness)
    light = rng.random() < 0.3
    colour = np.full(3, rng.uniform(200, 250) if light else rng.uniform(10, 60))
    drawn = _blend(turned, colour, cover[..., None] * rng.uniform(0.6, 0.95))
    return np.ascontiguousarray(np.rot90(drawn, -side))


def ink(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One to three strokes of a surgical marker, violet or blue, near the border."""
    height, width = image.shape[:2]
    cover = np.zeros((height, width), dtype=np.float32)
    for _ in range(int(rng.integers(1, 4))):
        angle, reach = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.35, 0.55)
        middle = np.array([0.5 + reach * np.cos(angle), 0.5 + reach * np.sin(angle)])
        points = middle + np.cumsum(rng.normal(0.0, 0.05, (5, 2)), axis=0)
        pixels = np.round(points * (width, height)).astype(np.int32)
        cv2.polylines(
            cover, [pixels], False, 1.0, max(1, round(rng.uniform(0.015, 0.04) * width)), cv2.LINE_AA
        )
    cover = cv2.GaussianBlur(cover, (0, 0), max(0.5, 0.006 * width))
    colour = np.array([rng.uniform(50, 120), rng.uniform(30, 80), rng.uniform(110, 190)])
    return _blend(image, colour, cover[..., None] * rng.uniform(0.4, 0.85))


def sticker(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A part of a round sticker of one colour that reaches into the picture from its border."""
    height, width = image.shape[:2]
    angle, radius = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.12, 0.3)
    centre = 0.5 + (0.5 + rng.uniform(0.3, 0.8) * radius) * np.array([np.cos(angle), np.sin(angle)])
    cover = np.zeros((height, width), dtype=np.float32)
    cv2.circle(
        cover,
        (round(centre[0] * width), round(centre[1] * height)),
        round(radius * width),
        1.0,
        -1,
        cv2.LINE_AA,
    )
    bright = rng.permutation([rng.uniform(150, 240), rng.uniform(60, 200), rng.uniform(20, 120)])
    return _blend(image, bright, cover[..., None] * rng.uniform(0.85, 1.0))


def dark_corners(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The round field of a dermoscope: black or dark outside a circle, with a soft or a hard edge."""
    height, width = image.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    dx = (x - width * rng.uniform(0.45, 0.55)) / width
    dy = (y - height * rng.uniform(0.45, 0.55)) / height
    distance = np.sqrt(dx * dx + dy * dy)
    radius, softness = rng.uniform(0.48, 0.68), rng.choice([0.01, 0.03, 0.1])
    cover = np.clip((distance - radius) / softness, 0.0, 1.0)[..., None]
    return _blend(image, np.full(3, rng.uniform(0, 25)), cover * rng.uniform(0.7, 1.0))


def colour_cast(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another light or white balance: each channel multiplied by 0.88 to 1.12, and a gamma of 0.8 to 1.25."""
    gains = rng.uniform(0.88, 1.12, 3)
    gamma = np.exp(rng.uniform(np.log(0.8), np.log(1.25)))
    levels = np.arange(256, dtype=np.float64) / 255.0
    tables = np.clip(np.clip(levels[:, None] * gains, 0.0, 1.0) ** gamma * 255.0, 0.0, 255.0)
    result: np.ndarray = cv2.LUT(image, np.round(tables).astype(np.uint8)[None])
    return result


def _blend(image: np.ndarray, colour: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """`colour` (3,), 0 to 255, laid over the image where `cover`, float (h, w, 1),
    is above 0 (1 hides it).
    """
    values = image.astype(np.float32) * (1.0 - cover) + colour.astype(np.float32) * cover
    result: np.ndarray = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return result


class Artefact(A.ImageOnlyTransform):  # type: ignore[misc]
    """One of the functions above as a transform of albumentations, applied with probability `p`."""

    def __init__(self, draw: Draw, p: float) -> None:
        super().__init__(p=p)
        self.draw = draw

    def get_params(self) -> dict[str, int]:
        return {"seed": int(self.random_generator.integers(2**32))}

    def apply(self, img: np.ndarray, seed: int, **_params: object) -> np.ndarray:
        return self.draw(np.ascontiguousarray(img), np.random.default_rng(seed))


def artefacts() -> list[A.BasicTransform]:
    """All of them, each with the share of images that it is drawn over."""
    return [
        Artefact(sticker, p=0.05),
        Artefact(ink, p=0.08),
        Artefact(ruler, p=0.12),
        Artefact(hair, p=0.25),
        Artefact(dark_corners, p=0.15),
        Artefact(colour_cast, p=0.4),
    ]
