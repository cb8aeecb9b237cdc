"""Where a map lies, on drawn lesions whose place is known."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.explain.placement import _grown, likely_lesion, placement

SKIN, LESION = (220, 180, 160), (120, 80, 60)


def drawn(*discs: tuple[float, float, float]) -> np.ndarray:
    """Skin, 192 x 192, with dark discs: y, x and radius as shares of the side."""
    image = np.full((192, 192, 3), SKIN, np.uint8)
    y, x = (np.mgrid[0:192, 0:192] + 0.5) / 192
    for at_y, at_x, radius in discs:
        image[np.hypot(y - at_y, x - at_x) < radius] = LESION
    return image


def test_the_dark_disc_in_the_middle_is_the_lesion_not_the_larger_one_at_the_side() -> None:
    lesion = likely_lesion(drawn((0.5, 0.5, 0.15), (0.9, 0.9, 0.25)))
    assert lesion is not None
    # pi 0.15^2 = 0.0707 of the field; smoothing moves its outline by a pixel of 96 or so.
    assert lesion.mean() == pytest.approx(0.0707, abs=0.015)
    assert lesion[48, 48]
    assert not lesion[86, 86]


def test_black_corners_are_no_lesion() -> None:
    image = drawn((0.5, 0.5, 0.15))
    y, x = (np.mgrid[0:192, 0:192] + 0.5) / 192
    image[np.hypot(y - 0.5, x - 0.5) > 0.52] = 0
    lesion = likely_lesion(image)
    assert lesion is not None
    assert lesion.mean() == pytest.approx(0.0707, abs=0.015)


def test_a_bright_middle_belongs_to_the_lesion_around_it() -> None:
    image = drawn((0.5, 0.5, 0.25))
    y, x = (np.mgrid[0:192, 0:192] + 0.5) / 192
    image[np.hypot(y - 0.5, x - 0.5) < 0.1] = SKIN
    lesion = likely_lesion(image)
    assert lesion is not None
    assert lesion[48, 48]
    assert lesion.mean() == pytest.approx(np.pi * 0.25**2, abs=0.02)


def test_a_lesion_grows_by_five_percent_of_the_side() -> None:
    lesion = np.zeros((96, 96), bool)
    lesion[48, 48] = True
    # 4.8 places: of whole-numbered distances, those with dy^2 + dx^2 <= 23.04 are 69.
    assert _grown(lesion).sum() == 69


def test_shares_of_a_map_of_two_places() -> None:
    heat = np.zeros((12, 12), np.float32)
    heat[5:7, 5:7] = 3.0  # in the lesion, and after interpolation still within it and the 5 % around it
    heat[0, 0] = 4.0  # in the corner
    lies = placement(drawn((0.5, 0.5, 0.2)), heat)
    # 12 inside; of the corner's place 4 + what interpolation spreads beyond: edges repeat, so about as much.
    assert lies.outside_lesion == pytest.approx(0.25, abs=0.02)
    assert lies.at_border == pytest.approx(0.25, abs=0.03)


def test_undefined_stays_undefined() -> None:
    heat = np.ones((4, 4), np.float32)
    plain = placement(np.full((50, 80, 3), SKIN, np.uint8), heat)
    assert plain.outside_lesion is None
    # A tenth is 10 of 96 places: 1 - (76 / 96)^2.
    assert plain.at_border == pytest.approx(1 - (76 / 96) ** 2, abs=1e-5)
    ramp = np.linspace(60, 220, 100)[None, :, None].repeat(100, 0).repeat(3, 2).astype(np.uint8)
    assert likely_lesion(ramp) is None  # dark along half of the border: shadow
    zero = placement(drawn((0.5, 0.5, 0.2)), np.zeros((4, 4), np.float32))
    assert (zero.outside_lesion, zero.at_border) == (None, None)
