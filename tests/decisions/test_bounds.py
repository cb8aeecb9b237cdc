"""Exact bounds against sums written out, and against brute force."""

from __future__ import annotations

from itertools import combinations
from math import comb

import pytest
from scipy.stats import binomtest

from skinlesion_cli.decisions.statistics import bounds

FAR = 10**6  # a horizon so far that only the population counts


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Answers of another test, or of another version of the function, do not stand in for this one's."""
    bounds.allowed_misses.cache_clear()


def test_nineteen_of_nineteen_carry_085_and_eighteen_of_eighteen_do_not():
    # 0.85^19 = 0.0456 <= 0.05 < 0.85^18 = 0.0536
    assert bounds.allowed_misses(19, 0.85, 0.95, FAR) == 0
    assert bounds.allowed_misses(18, 0.85, 0.95, FAR) == -1


def test_far_horizon_is_the_clopper_pearson_bound():
    for n, share in ((60, 0.85), (40, 0.75), (111, 0.85)):
        j = bounds.allowed_misses(n, share, 0.95, FAR)
        assert binomtest(n - j, n, alternative="greater").proportion_ci(0.95).low >= share
        assert binomtest(n - j - 1, n, alternative="greater").proportion_ci(0.95).low < share


def test_next_sample_by_brute_force():
    # 8 seen and 8 new lesions, all orders of 16 scores alike. With θ at the lowest seen score (j = 0), how
    # often are more than 2 of the new ones below it? More than 2 of 8 are missed where 0.75 is wanted.
    broken = sum(1 for seen in combinations(range(16), 8) if min(seen) > 2)
    assert broken / comb(16, 8) == pytest.approx(0.1)  # 13! 8! / (5! 16!)
    kept = 1 - broken / comb(16, 8)
    assert kept == pytest.approx(0.9)
    # The sample allows j = 0 at 0.9, the population does not: 0.75^8 = 0.1001 > 0.1.
    assert bounds.allowed_misses(8, 0.75, 0.8999999, 8) == 0
    assert bounds.allowed_misses(8, 0.75, 0.90) == -1
    assert bounds.allowed_misses(8, 0.75, 0.899) == 0
    assert bounds.allowed_misses(8, 0.75, 0.901, 8) == -1


def test_a_near_horizon_costs_more_than_a_far_one():
    assert bounds.allowed_misses(111, 0.85, 0.95, 111) == 8
    assert bounds.allowed_misses(111, 0.85, 0.95, FAR) == bounds.allowed_misses(111, 0.85, 0.95) == 10


def test_rounding_loses_no_lesion():
    # (1 - 0.85) * 20 is 3.0000000000000004 or 2.9999999999999996: three may be missed.
    assert bounds.allowed_misses(500, 0.85, 0.95, 20) == bounds.allowed_misses(500, 0.8499999, 0.95, 20)


def test_no_lesions_guarantee_nothing():
    assert bounds.allowed_misses(0, 0.5, 0.95) == -1
    assert bounds.guaranteed_share(5, 5, 0.95) == 0.0


def test_guaranteed_share_is_the_largest_that_is_allowed():
    share = bounds.guaranteed_share(40, 4, 0.95)
    assert bounds.allowed_misses(40, share, 0.95) >= 4
    assert bounds.allowed_misses(40, share + 0.001, 0.95) < 4


def test_lesions_needed():
    needed = bounds.lesions_needed(0.10, 0.85, 0.95)
    assert needed is not None
    assert bounds.allowed_misses(needed, 0.85, 0.95) >= 0.10 * needed - 1
    assert bounds.lesions_needed(0.15, 0.85, 0.95) is None
    # 0.85^19 = 0.0456 <= 0.05 < 0.85^18.
    assert bounds.lesions_needed(0.0, 0.85, 0.95) == 19


def test_exact_interval():
    # 9 of 10: the textbook interval.
    assert bounds.binomial_interval(9, 10) == pytest.approx((0.5550, 0.9975), abs=1e-4)
    low, high = bounds.binomial_interval(0, 0)
    assert low != low
    assert high != high


def test_the_next_lesions_and_the_population_are_two_questions():
    # One new lesion is among the lowest j + 1 of 20 with probability (j + 1) / 20: for j = 0 that is 0.05,
    # allowed.
    assert bounds.allowed_misses(19, 0.95, 0.95, 1) == 0
    # 0.95^19 = 0.3774: nothing of the population.
    assert bounds.allowed_misses(19, 0.95, 0.95) == -1
