"""Numbers behind `explain --check`, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.explain.sanity import centre_map, deletion_insertion, mean_of, rank_correlation


def test_rank_correlation() -> None:
    one = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert rank_correlation(one, one**3) == pytest.approx(1.0)
    assert rank_correlation(one, -one) == pytest.approx(-1.0)
    # Ranks 1 2 3 4 against 2 1 4 3: 1 - 6 * 4 / (4 * 15) = 0.6
    assert rank_correlation(one, np.array([[2.0, 1.0], [4.0, 3.0]])) == pytest.approx(0.6)
    assert np.isnan(rank_correlation(one, np.ones((2, 2))))


def test_mean_with_interval() -> None:
    found = mean_of(np.array([1.0, 2.0, 3.0, np.nan]))
    # t(0.975, 2) = 4.302653, standard error 1 / sqrt(3)
    assert (found.mean, found.n) == (2.0, 3)
    assert found.high == pytest.approx(2.0 + 4.302653 / np.sqrt(3), abs=1e-5)
    assert mean_of(np.array([])).mean is None
    assert mean_of(np.array([1.0])).low is None


def test_deletion_and_insertion_of_a_perfect_and_a_wrong_map() -> None:
    image = np.zeros((10, 10, 3), np.uint8)
    image[0] = 255  # the first row, a tenth of the pixels, is all that counts

    def score(variants: np.ndarray) -> np.ndarray:
        return (variants[:, 0, :, 0] == 255).mean(axis=1)

    right = np.linspace(1.0, 0.0, 10)[:, None].repeat(10, axis=1)
    deletion, insertion = deletion_insertion(image, right, score)
    # Gone after the first tenth: trapezoid of 1, 0, 0 ... = 0.05; back after the first: 0.95.
    assert (deletion, insertion) == (pytest.approx(0.05), pytest.approx(0.95))
    deletion, insertion = deletion_insertion(image, -right, score)
    assert (deletion, insertion) == (pytest.approx(0.95), pytest.approx(0.05))


def test_centre_map_is_highest_in_the_middle() -> None:
    assert np.unravel_index(centre_map(5).argmax(), (5, 5)) == (2, 2)
