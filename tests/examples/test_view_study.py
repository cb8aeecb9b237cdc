"""The study of views: what it cuts out, how it whitens, and its table."""

from __future__ import annotations

import numpy as np
import pytest
import view_study as study

from tests.support import synthetic


def drawn(top: int, left: int, side: int) -> np.ndarray:
    """A dark square on light skin, 200 x 200."""
    image = np.full((200, 200, 3), (220, 180, 170), np.uint8)
    image[top : top + side, left : left + side] = (90, 60, 50)
    return image


def test_the_square_around_a_lesion_has_its_centre_and_keeps_to_the_image() -> None:
    top, left, side = study.lesion_box(drawn(90, 60, 50))
    assert side == pytest.approx(1.8 * 50 / 200, abs=0.05)
    assert (top + side / 2, left + side / 2) == (
        pytest.approx(115 / 200, abs=0.02),
        pytest.approx(85 / 200, abs=0.02),
    )
    top, left, side = study.lesion_box(drawn(100, 0, 60))
    assert left == 0.0
    assert 0.0 <= top <= 1.0 - side
    assert study.lesion_box(np.full((50, 50, 3), 200, np.uint8)) is None


def test_a_cut_is_the_named_part_and_never_empty() -> None:
    image = np.arange(20 * 10 * 3, dtype=np.uint16).reshape(20, 10, 3)
    assert study.cut(image, (0.25, 0.5, 0.5)).tolist() == image[5:15, 5:10].tolist()
    assert study.cut(np.zeros((1, 1, 3), np.uint8), (0.4, 0.4, 0.35)).shape == (1, 1, 3)


def test_white_light_makes_the_norms_of_the_channels_equal() -> None:
    image = np.full((4, 4, 3), (200, 100, 150), np.uint8)
    # The light is (200, 100, 150), its mean 150: every channel becomes 150.
    assert study.in_white_light(image).tolist() == np.full((4, 4, 3), 150).tolist()
    black = np.zeros((4, 4, 3), np.uint8)
    assert study.in_white_light(black).tolist() == black.tolist()


def test_the_table_compares_every_row_with_the_first() -> None:
    labels, values, lesions = synthetic.predictions(300, 5)
    parts = np.repeat(values[:, None], len(study.PARTS), axis=1)
    lines = study.table("home", labels, lesions, parts)
    assert [line.split(" | ")[0] for line in lines] == [f"| {name}" for name in study.ROWS]
    assert lines[0].endswith("|  |  |")
    # The same predictions for every part: no row differs.
    assert all(line.count("+0.000 (+0.000 to +0.000)") == 2 for line in lines[1:])
