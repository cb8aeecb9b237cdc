"""One vote a lesion."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.decisions.statistics.lesions import group, votes
from skinlesion_cli.errors import DataError


def test_votes_are_lower_or_upper_medians():
    codes = np.array([0, 0, 0, 1, 1, 2, 3, 3, 3, 3])
    scores = np.array([0.9, 0.1, 0.5, 0.2, 0.8, 0.7, 0.4, 0.3, 0.2, 0.1])
    assert votes(scores, codes).tolist() == [0.5, 0.2, 0.7, 0.2]
    assert votes(scores, codes, upper=True).tolist() == [0.5, 0.8, 0.7, 0.3]


def test_a_vote_is_above_a_threshold_where_more_than_half_of_the_images_are():
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 40, 200)
    scores = generator.random(200)
    numbered = np.unique(codes)
    for theta in (0.2, 0.5, 0.8):
        wanted = [(scores[codes == code] > theta).mean() > 0.5 for code in numbered]
        at_least = [(scores[codes == code] > theta).mean() >= 0.5 for code in numbered]
        assert (votes(scores, codes) > theta).tolist() == wanted
        assert (votes(scores, codes, upper=True) > theta).tolist() == at_least


def test_no_images_no_votes():
    assert votes(np.empty(0), np.empty(0, dtype=int)).size == 0


def test_groups():
    found = group(np.array(["b", "a", "b"], dtype=object), np.array([1, 0, 1]))
    assert (found.n, found.codes.tolist(), found.sizes.tolist()) == (2, [1, 0, 1], [1, 2])
    assert found.take(np.array([False, True])).tolist() == [0, 2]


def test_a_lesion_of_two_classes_is_refused_by_name():
    with pytest.raises(DataError, match="L2"):
        group(np.array(["L1", "L2", "L2"]), np.array([0, 0, 1]))
