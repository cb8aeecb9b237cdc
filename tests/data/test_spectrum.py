"""The spectrum of an image: a picture of one cosine, and the same numbers as scipy."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from skinlesion_cli.data.spectrum import spectrum
from tests.support.scenes import scene


def test_a_picture_of_one_cosine_has_one_coefficient() -> None:
    places = (2 * np.arange(64) + 1) * np.pi / 128
    grey = 128 + 40 * np.cos(3 * places)[:, None] * np.cos(8 * places)[None, :]
    image = np.repeat(np.rint(grey).astype(np.uint8)[:, :, None], 3, axis=2)
    found = spectrum(image)
    assert found.shape == (24, 24)
    assert found.dtype == np.float32
    # Orthonormal: each cosine has the length sqrt(64 / 2), the constant the length 64.
    assert found[3, 8] == pytest.approx(40 * 32, rel=1e-3)
    assert found[0, 0] == pytest.approx(128 * 64, rel=1e-3)
    found[3, 8] = found[0, 0] = 0
    assert np.abs(found).max() < 4  # pixels are whole grey levels


def test_it_is_the_cosine_transform_of_the_grey_image() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    image = np.repeat(grey[:, :, None], 3, axis=2)
    expected = dctn(grey.astype(float), norm="ortho")[:24, :24]
    np.testing.assert_allclose(spectrum(image), expected, atol=1e-3)


@pytest.mark.parametrize(("colour", "grey"), [((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29)])
def test_colours_count_as_the_eye_sees_them(colour: tuple[int, int, int], grey: int) -> None:
    image = np.full((300, 400, 3), colour, np.uint8)
    found = spectrum(image)
    assert found[0, 0] == pytest.approx(grey * 64)
    assert np.abs(found).sum() == pytest.approx(grey * 64, abs=0.01)


def test_a_large_image_has_the_spectrum_of_the_small_one() -> None:
    large = np.asarray(scene(1, 1024))
    small = np.asarray(scene(1, 1024).resize((128, 128), Image.Resampling.LANCZOS))
    strong = np.abs(spectrum(small)) > 20
    assert strong.sum() > 150
    assert (np.sign(spectrum(small)) == np.sign(spectrum(large)))[strong].all()
