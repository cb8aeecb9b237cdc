"""Bounds on means of shares, against closed forms and by coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from skinlesion_cli.decisions.statistics import lesion_means


def test_all_caught_is_hoeffdings_bound():
    # mean 1: the divergence is log(1 / m), so that m^n = 0.05.
    assert lesion_means.mean_lower_bound(np.ones(50), 0.95) == pytest.approx(0.05 ** (1 / 50), abs=1e-4)


def test_the_p_value_is_the_smaller_of_the_two():
    mean, n, m = 0.9, 40, 0.8
    divergence = 0.9 * np.log(0.9 / 0.8) + 0.1 * np.log(0.1 / 0.2)
    assert lesion_means.p_value(mean, n, m) == pytest.approx(
        min(np.exp(-40 * divergence), np.e * binom.cdf(4, 40, 0.2))
    )
    assert lesion_means.p_value(0.8, 40, 0.8) == 1.0
    assert lesion_means.p_value(0.8, 0, 0.1) == 1.0
    assert lesion_means.p_value(0.8, 40, 0.0) == 0.0


def test_nothing_seen_nothing_known():
    assert lesion_means.mean_lower_bound(np.empty(0), 0.95) == 0.0
    assert lesion_means.share_lower_bound(np.zeros(5), np.zeros(5), 0.95) == 0.0
    assert lesion_means.share_upper_bound(np.zeros(5), np.zeros(5), 0.95) == 1.0


def test_lesions_outside_say_nothing():
    inside, hits = np.r_[np.ones(60), np.zeros(500)], np.r_[np.ones(50), np.zeros(510)]
    alone = lesion_means.share_lower_bound(inside[:60], hits[:60], 0.95)
    assert lesion_means.share_lower_bound(inside, hits, 0.95) == alone == pytest.approx(0.7069, abs=2e-4)
    assert lesion_means.share_upper_bound(inside, inside - hits, 0.95) == pytest.approx(1 - alone, abs=2e-4)


def test_mean_by_lesion():
    assert lesion_means.mean_by_lesion(np.array([1, 0, 1, 1]), np.array([7, 7, 2, 7])).tolist() == [
        1.0,
        2 / 3,
    ]


def test_bounds_hold_on_ratios_with_partly_referred_lesions():
    """The share of malignant among referred photographs, where lesions have one to three of them."""
    rng = np.random.default_rng(0)

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        ill, sizes = rng.random(n) < 0.3, rng.integers(1, 4, n)
        inside = rng.binomial(sizes, np.where(ill, 0.7, 0.1)) / sizes
        return inside, inside * ill

    inside, hits = draw(400_000)
    truth = hits.sum() / inside.sum()
    bounds = [lesion_means.share_lower_bound(*draw(300), 0.9) for _ in range(300)]
    assert np.mean(np.array(bounds) > truth) <= 0.10
    assert truth - 0.15 < np.mean(bounds) < truth
