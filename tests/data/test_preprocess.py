"""From an image to the network's input."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional

from skinlesion_cli.config.schema import Preprocessing
from skinlesion_cli.data.preprocess import decode_target_px, resize_square, to_field, to_input


def stripes(period_px: int, size_px: int = 64) -> np.ndarray:
    columns = (np.arange(size_px) // (period_px // 2) % 2 * 255).astype(np.uint8)
    return np.broadcast_to(columns[None, :, None], (size_px, size_px, 3)).copy()


def test_shrinking_is_antialiased():
    # Stripes finer than the pixels of the result become even grey; picking single pixels would keep them.
    small = resize_square(stripes(2), 16)
    assert small.shape == (16, 16, 3)
    assert np.abs(small[:, 2:-2].astype(int) - 127.5).max() <= 2


@pytest.mark.parametrize(
    ("interpolation", "mode"), [("antialias", "bilinear"), ("antialias-bicubic", "bicubic")]
)
@pytest.mark.parametrize(
    ("harmonise_px", "field_px", "size_px"), [(None, None, 48), (40, None, 64), (None, 90, 64)]
)
def test_every_step_uses_the_filter_of_the_preprocessing(
    interpolation: str, mode: str, harmonise_px: int | None, field_px: int | None, size_px: int
) -> None:
    image = np.random.default_rng(1).integers(0, 255, (100, 130, 3), dtype=np.uint8)
    preprocessing = Preprocessing(
        input_size_px=size_px, harmonise_px=harmonise_px, field_px=field_px, interpolation=interpolation
    )
    expected = torch.from_numpy(image).permute(2, 0, 1)[None]
    for side in filter(None, (harmonise_px, field_px, size_px)):
        expected = functional.interpolate(expected, (side, side), mode=mode, antialias=True)
    seen = to_input(image, preprocessing).astype(int)
    assert np.abs(seen - expected[0].permute(1, 2, 0).numpy().astype(int)).max() <= 2  # two roundings


def test_a_constant_image_stays_what_it_is():
    image = np.full((37, 91, 3), 77, dtype=np.uint8)
    for size_px in (16, 64, 200):
        assert (resize_square(image, size_px) == 77).all()


def test_the_aspect_ratio_is_squeezed():
    image = np.zeros((20, 80, 3), dtype=np.uint8)
    image[:, 40:] = 255
    square = resize_square(image, 20)
    assert square[:, :8].max() == 0
    assert square[:, 12:].min() == 255


def test_the_right_size_is_left_alone():
    image = stripes(2)
    assert (to_input(image, Preprocessing(input_size_px=64)) == image).all()


def test_harmonising_makes_sharp_and_blurred_sources_alike():
    sharp = stripes(32)
    blurred = resize_square(resize_square(sharp, 16), 64)
    plain = Preprocessing(input_size_px=64)
    harmonised = Preprocessing(input_size_px=64, harmonise_px=16)

    def steepest(image: np.ndarray, preprocessing: Preprocessing) -> int:
        return int(np.abs(np.diff(to_input(image, preprocessing).astype(int), axis=1)).max())

    assert steepest(sharp, plain) == 255
    assert steepest(sharp, plain) > 3 * steepest(blurred, plain)
    assert steepest(sharp, harmonised) < 1.5 * steepest(blurred, harmonised)
    assert decode_target_px(harmonised) == 16
    assert decode_target_px(plain) == 64


def test_neither_torch_nor_opencv_is_needed():
    code = (
        "import sys; import skinlesion_cli.data.preprocess, skinlesion_cli.data.reading.images; "
        "print([name for name in ('torch', 'cv2', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_field_comes_before_the_input():
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    preprocessing = Preprocessing(input_size_px=32, field_px=48)
    field = to_field(image, preprocessing)
    assert (field == resize_square(image, 48)).all()
    assert (to_input(image, preprocessing) == resize_square(field, 32)).all()
    assert (to_input(field, preprocessing) == resize_square(field, 32)).all()
    assert decode_target_px(preprocessing) == 48
