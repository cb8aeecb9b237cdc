"""The bundled model's quality gate on pictures that are not dermoscopic images: none comes out as routine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw

from skinlesion_cli import Classifier


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.load("builtin", device="cpu")


def mask(generator: np.random.Generator) -> np.ndarray:
    picture = Image.new("L", (200, 150))
    box = [*generator.integers(10, 50, 2), *generator.integers(90, 140, 2)]
    ImageDraw.Draw(picture).ellipse([int(value) for value in box], fill=255)
    return np.asarray(picture.convert("RGB"))


def noise(generator: np.random.Generator) -> np.ndarray:
    return generator.integers(0, 256, (338, 450, 3), dtype=np.uint8)


def document(generator: np.random.Generator) -> np.ndarray:
    picture = Image.new("RGB", (300, 400), (245, 245, 240))
    for y in range(20, 380, 14):
        line = "".join(generator.choice(list("abcdefgh ijk lmnop"), 45))
        ImageDraw.Draw(picture).text((15, y), line, fill=(20, 20, 20))
    return np.asarray(picture)


def clinical_photograph(generator: np.random.Generator) -> np.ndarray:
    """An arm before a background, with a small mark on it."""
    coarse = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((300, 300), Image.Resampling.BICUBIC)).copy()
    y, x = np.mgrid[:300, :300]
    arm = np.abs((y - 150) + 0.3 * (x - 150)) < 80
    pixels[arm] = np.clip(np.array([200, 150, 130]) + generator.normal(0, 6, (arm.sum(), 3)), 0, 255)
    pixels[(y - 150) ** 2 + (x - 150) ** 2 < 60] = (90, 60, 50)
    return pixels


def bare_skin(generator: np.random.Generator) -> np.ndarray:
    tone = np.array([210, 160, 140]) + generator.normal(0, 15, 3)
    return np.clip(tone + generator.normal(0, 4, (200, 260, 3)), 0, 255).astype(np.uint8)


def gradient(generator: np.random.Generator) -> np.ndarray:
    coarse = Image.fromarray(generator.integers(0, 256, (3, 3, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((240, 240), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("draw", [mask, noise, document, clinical_photograph, bare_skin, gradient])
def test_foreign_pictures_are_flagged(classifier: Classifier, draw: Callable[..., np.ndarray]):
    generator = np.random.default_rng(11)
    predictions = classifier.predict([draw(generator) for _ in range(4)])
    assert [prediction.error for prediction in predictions] == [None] * 4
    assert [prediction.flagged for prediction in predictions] == [True] * 4
    assert "routine" not in {prediction.triage for prediction in predictions}


def test_a_flat_colour_is_an_error(classifier: Classifier):
    (prediction,) = classifier.predict([np.full((200, 260, 3), (190, 140, 120), dtype=np.uint8)])
    assert prediction.error
    assert prediction.triage is None
