"""The order of steps, how far a few of them may be from all, and what is decided after each."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.decisions.adaptive.fit import fit_stopping
from skinlesion_cli.decisions.adaptive.forward_passes import Steps
from skinlesion_cli.decisions.adaptive.stopping import StoppingRule, stopped_means, stored_step_shares
from skinlesion_cli.decisions.triage import DecisionRule
from skinlesion_cli.errors import DataError
from tests.support.class_lists import ISIC2018


def test_steps_go_through_the_groups_first_and_omit_those_without_weight() -> None:
    assert Steps((0.5, 0.0, 0.5), 2).order == ((0, 0), (2, 0), (0, 1), (2, 1))


def test_spreads_worked_out_by_hand() -> None:
    # One group: sqrt(1/k - 1/K).
    np.testing.assert_allclose(Steps((1.0,), 4).spreads, [0.75**0.5, 0.5, (1 / 12) ** 0.5, 0.0])
    # Two groups of two views. After the first step the other group counts nothing: 4 (0.5² + 0.5²) = 2; that
    # step has 1 instead of 1/4, the three others 0 instead of 1/4: 0.75² + 3/16 = 0.75. Then each group has
    # one view at 1/2 and one at 0 instead of 1/4: 4/16 = 0.25. Then one group is complete: 2/16 = 0.125.
    expected = np.sqrt([2.75, 0.25, 0.125, 0.0])
    np.testing.assert_allclose(Steps((0.5, 0.5), 2).spreads, expected)
    # A group without weight adds nothing.
    np.testing.assert_allclose(Steps((0.5, 0.0, 0.5), 2).spreads, expected)


def test_estimates_worked_out_by_hand() -> None:
    # Group 0 (weight 0.75) gives class 0 0.2 and 0.6, group 1 (0.25) gives it 1.0 and 0.0.
    groups = np.zeros((1, 2, 2, 7), np.float32)
    groups[0, :, :, 0] = [[0.2, 0.6], [1.0, 0.0]]
    found = Steps((0.75, 0.25), 2).estimates(groups)
    # 0.2; 0.75 * 0.2 + 0.25 * 1; 0.75 * 0.4 + 0.25 * 1; 0.75 * 0.4 + 0.25 * 0.5.
    np.testing.assert_allclose(found[0, :, 0], [0.2, 0.4, 0.55, 0.425], atol=1e-7)
    assert found.dtype == np.float32


@pytest.mark.parametrize("weights", [(0.5, 0.4), (1.5, -0.5), (float("nan"), 1.0)])
def test_weights_that_are_none_are_refused(weights: tuple[float, float]) -> None:
    with pytest.raises(DataError, match="must sum to 1"):
        Steps(weights, 8)


def test_an_image_stops_at_the_first_step_that_has_converged() -> None:
    # Group 0 gives 0.9 NV, 0.1 MEL: ln 9 = 2.197 ahead, more than 1 * sqrt(2.75) = 1.658.
    # The other image: 0.6 and 0.4 are ln 1.5 = 0.405 apart. Then 0.75 and 0.25: ln 3 = 1.099 > sqrt(0.25) =
    # 0.5.
    groups = np.zeros((2, 2, 2, 7), np.float32)
    groups[0, :, :, :2] = [0.1, 0.9]
    groups[1, 0, :, :2] = [0.4, 0.6]
    groups[1, 1, :, :2] = [0.1, 0.9]
    stopping = StoppingRule(DecisionRule(ISIC2018), margin_factor=1.0, n_views=2, weights=(0.5, 0.5))
    means, taken = stopped_means(stopping, groups)
    assert taken.tolist() == [1, 2]
    np.testing.assert_allclose(means[:, 1], [0.9, 0.75], atol=1e-7)


def test_a_stored_rule_comes_back_and_one_of_whole_views_still_reads() -> None:
    stopping = StoppingRule(DecisionRule(ISIC2018), margin_factor=1.5, n_views=8, weights=(0.25, 0.75))
    stored = stopping.to_json()
    assert StoppingRule.from_json(stored, ISIC2018) == stopping
    del stored["weights"]
    assert StoppingRule.from_json(stored, ISIC2018).steps.n == 8


def test_stored_shares_sum_to_one() -> None:
    shares = stored_step_shares({"step_shares": [1.0, 3.0]})
    assert shares is not None
    assert shares.tolist() == [0.25, 0.75]
    assert stored_step_shares({"mean_steps": 2.0}) is None


def _ensemble(n_images: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three groups that differ from one another more than their views do."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 7, n_images)
    logits = generator.normal(0, 1.0, (n_images, 1, 1, 7)) + 4.0 * np.eye(7)[labels][:, None, None]
    logits = (
        logits + generator.normal(0, 0.6, (n_images, 3, 1, 7)) + generator.normal(0, 0.3, (n_images, 3, 8, 7))
    )
    values = np.exp(logits)
    groups = (values / values.sum(-1, keepdims=True)).astype(np.float32)
    return groups, labels, np.arange(n_images).astype(str)


def test_single_networks_need_fewer_forward_passes_than_whole_views_and_keep_the_bound() -> None:
    groups, labels, lesions = _ensemble(3000, 0)
    weights = (1 / 3, 1 / 3, 1 / 3)
    fit = fit_stopping(DecisionRule(ISIC2018), groups[:1500], labels[:1500], lesions[:1500], weights)
    whole = groups[:1500].mean(axis=1, keepdims=True)
    by_views = fit_stopping(DecisionRule(ISIC2018), whole, labels[:1500], lesions[:1500])
    assert (fit.n_steps, by_views.n_steps) == (24, 8)
    assert fit.mean_steps < 0.8 * 3 * by_views.mean_steps
    assert sum(fit.step_shares) == pytest.approx(1.0)
    assert fit.upper_bound <= 0.005
    means, _ = stopped_means(fit.stopping, groups[1500:])
    full = groups[1500:].mean(axis=(1, 2))
    assert (means.argmax(1) != full.argmax(1)).mean() <= 0.005
