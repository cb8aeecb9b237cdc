"""How members become one."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.decisions.ensemble import (
    bacc_weights,
    combine,
    stacked_weights,
)
from skinlesion_cli.errors import DataError
from tests.support import synthetic


def test_published_weights():
    # Seed 42 of the published system.
    found = bacc_weights([0.8135, 0.8017, 0.8007])
    assert found == pytest.approx([0.8135 / 2.4159, 0.8017 / 2.4159, 0.8007 / 2.4159], abs=1e-6)
    assert found.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("bacc", [[], [0.8, float("nan")], [0.0, 0.0], [-0.1, 0.5]])
def test_what_weights_nothing_is_refused(bacc):
    with pytest.raises(DataError):
        bacc_weights(bacc)


def test_combine_by_hand():
    one, two = np.eye(7, dtype=np.float32)[[0]], np.eye(7, dtype=np.float32)[[1]]
    found = combine(np.stack([one, two]), [0.75, 0.25])
    assert found.dtype == np.float32
    assert found[0, :3].tolist() == [0.75, 0.25, 0.0]


def test_weights_that_are_none_are_refused():
    stack = np.full((2, 3, 7), 1 / 7)
    for weights in ([0.5, 0.6], [1.5, -0.5], [1.0], [np.nan, 1.0]):
        with pytest.raises(DataError):
            combine(stack, weights)


def test_stacking_prefers_the_better_member_but_keeps_the_other():
    labels, good, lesions = synthetic.predictions(800, 1, strength=4.0)
    noise = np.random.default_rng(0).dirichlet(np.ones(7), len(labels)).astype(np.float32)
    weights = stacked_weights(labels, np.stack([good, noise]), lesions)
    assert weights.sum() == pytest.approx(1.0)
    assert weights[0] > 0.9
    alike = stacked_weights(labels, np.stack([good, good, good]), lesions)
    assert alike == pytest.approx([1 / 3] * 3, abs=1e-6)


def test_stacking_is_the_optimum_of_what_it_says():
    labels, one, lesions = synthetic.predictions(300, 2)
    _, two, _ = synthetic.predictions(300, 2, strength=2.0)
    two = two[: len(one)] if len(two) >= len(one) else one
    stack = np.stack([one, two])
    found = stacked_weights(labels, stack, lesions)
    _, codes, sizes = np.unique(lesions, return_inverse=True, return_counts=True)
    share = 1 / sizes[codes] / len(sizes)

    def objective(w: float) -> float:
        mixed = w * one[np.arange(len(labels)), labels] + (1 - w) * two[np.arange(len(labels)), labels]
        return -(share * np.log(mixed)).sum() + 0.01 * 2 * ((w - 0.5) ** 2 + (0.5 - w) ** 2)

    grid = np.linspace(0.001, 0.999, 999)
    assert found[0] == pytest.approx(grid[np.argmin([objective(w) for w in grid])], abs=2e-3)
