"""Hair, rulers, ink, stickers, dark corners and colour casts, drawn over a picture of one grey."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.data.training import artefacts
from skinlesion_cli.data.training.augmentation import make_augmentation
from tests.support.class_lists import ISIC2018

GREY = np.full((96, 128, 3), 128, dtype=np.uint8)
ALL = [
    artefacts.hair,
    artefacts.ruler,
    artefacts.ink,
    artefacts.sticker,
    artefacts.dark_corners,
    artefacts.colour_cast,
]


def drawn(draw, seed):
    return draw(GREY, np.random.default_rng(seed))


@pytest.mark.parametrize("draw", ALL)
def test_the_same_seed_draws_the_same_and_another_seed_another(draw):
    first, again, other = drawn(draw, 3), drawn(draw, 3), drawn(draw, 4)
    assert first.shape == GREY.shape
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (GREY == 128).all()


@pytest.mark.parametrize("draw", [artefacts.ruler, artefacts.ink, artefacts.sticker])
def test_what_comes_from_the_border_leaves_the_middle_alone(draw):
    for seed in range(20):
        middle = drawn(draw, seed)[44:52, 60:68]
        assert (middle == 128).mean() > 0.9


def test_dark_corners_darken_corners_alone():
    for seed in range(20):
        picture = drawn(artefacts.dark_corners, seed)
        assert (picture[44:52, 60:68] == 128).all()
        # A wide field that is off centre reaches into one of them.
        assert sum(int(picture[y, x].max() < 128) for y in (0, -1) for x in (0, -1)) >= 2


def test_hair_covers_a_small_part_and_is_mostly_darker_than_skin():
    changed = [(drawn(artefacts.hair, seed) != 128).any(axis=2).mean() for seed in range(40)]
    darker = [drawn(artefacts.hair, seed).mean() < 128 for seed in range(40)]
    assert 0.005 < np.mean(changed) < 0.35
    assert np.mean(darker) > 0.7


def test_a_colour_cast_is_one_table_a_channel():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    cast = artefacts.colour_cast(ramp, np.random.default_rng(0))
    assert (np.diff(cast.astype(int), axis=1) >= 0).all()
    assert len({tuple(cast[0, :, channel]) for channel in range(3)}) == 3


def test_varied_draws_each_artefact_about_as_often_as_it_says(monkeypatch):
    counts = dict.fromkeys([draw.__name__ for draw in ALL], 0)

    def counted(draw):
        def count(image, rng):
            counts[draw.__name__] += 1
            return draw(image, rng)

        return count

    for draw in ALL:
        monkeypatch.setattr(artefacts, draw.__name__, counted(draw))
    augment = make_augmentation("varied", 32, dict.fromkeys(ISIC2018.codes, 10))
    results = [augment(GREY, 0, seed) for seed in range(400)]
    assert {result.shape for result in results} == {(32, 32, 3)}
    shares = {
        "hair": 0.25,
        "ruler": 0.12,
        "ink": 0.08,
        "sticker": 0.05,
        "dark_corners": 0.15,
        "colour_cast": 0.4,
    }
    # Four standard deviations of a share of 400 draws are at most 0.1.
    assert {name: count / 400 for name, count in counts.items()} == pytest.approx(shares, abs=0.1)
    assert np.array_equal(augment(GREY, 0, 7), results[7])
