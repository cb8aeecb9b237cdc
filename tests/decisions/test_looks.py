"""The order of looks, how far a few of them may be from all, and what is decided after each."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.decisions.adaptive.fit import fit_stopping
from skinlesion_cli.decisions.adaptive.forward_passes import Looks
from skinlesion_cli.decisions.adaptive.stopping import StoppingRule, stopped_means
from skinlesion_cli.decisions.triage import DecisionRule
from skinlesion_cli.errors import DataError


def test_looks_go_round_the_voices_first_and_leave_out_those_without_weight() -> None:
    assert Looks((0.5, 0.0, 0.5), 2).order == ((0, 0), (2, 0), (0, 1), (2, 1))


def test_spreads_worked_out_by_hand() -> None:
    # One voice: sqrt(1/k - 1/K).
    np.testing.assert_allclose(Looks((1.0,), 4).spreads, [0.75**0.5, 0.5, (1 / 12) ** 0.5, 0.0])
    # Two voices of two views. After the first look the other voice counts nothing: 4 (0.5² + 0.5²) = 2; that look
    # has 1 instead of 1/4, the three others 0 instead of 1/4: 0.75² + 3/16 = 0.75. Then each voice has one view
    # at 1/2 and one at 0 instead of 1/4: 4/16 = 0.25. Then one voice is complete: 2/16 = 0.125.
    expected = np.sqrt([2.75, 0.25, 0.125, 0.0])
    np.testing.assert_allclose(Looks((0.5, 0.5), 2).spreads, expected)
    # A voice without weight adds nothing.
    np.testing.assert_allclose(Looks((0.5, 0.0, 0.5), 2).spreads, expected)


def test_estimates_worked_out_by_hand() -> None:
    # Voice 0 (weight 0.75) says 0.2 and 0.6 of class 0, voice 1 (0.25) says 1.0 and 0.0.
    voices = np.zeros((1, 2, 2, 7), np.float32)
    voices[0, :, :, 0] = [[0.2, 0.6], [1.0, 0.0]]
    found = Looks((0.75, 0.25), 2).estimates(voices)
    # 0.2; 0.75 * 0.2 + 0.25 * 1; 0.75 * 0.4 + 0.25 * 1; 0.75 * 0.4 + 0.25 * 0.5.
    np.testing.assert_allclose(found[0, :, 0], [0.2, 0.4, 0.55, 0.425], atol=1e-7)
    assert found.dtype == np.float32


@pytest.mark.parametrize("weights", [(0.5, 0.4), (1.5, -0.5), (float("nan"), 1.0)])
def test_weights_that_are_none_are_refused(weights: tuple[float, float]) -> None:
    with pytest.raises(DataError, match="must sum to 1"):
        Looks(weights, 8)


def test_an_image_stops_at_its_first_settled_look() -> None:
    # Voice 0 says 0.9 NV, 0.1 MEL: ln 9 = 2.197 ahead, more than 1 * sqrt(2.75) = 1.658.
    # The other image: 0.6 and 0.4 are ln 1.5 = 0.405 apart. Then 0.75 and 0.25: ln 3 = 1.099 > sqrt(0.25) = 0.5.
    voices = np.zeros((2, 2, 2, 7), np.float32)
    voices[0, :, :, :2] = [0.1, 0.9]
    voices[1, 0, :, :2] = [0.4, 0.6]
    voices[1, 1, :, :2] = [0.1, 0.9]
    stopping = StoppingRule(DecisionRule(), reach=1.0, n_views=2, weights=(0.5, 0.5))
    means, taken = stopped_means(stopping, voices)
    assert taken.tolist() == [1, 2]
    np.testing.assert_allclose(means[:, 1], [0.9, 0.75], atol=1e-7)


def test_a_stored_rule_comes_back_and_one_of_whole_views_still_reads() -> None:
    stopping = StoppingRule(DecisionRule(), reach=1.5, n_views=8, weights=(0.25, 0.75))
    stored = stopping.to_json()
    assert StoppingRule.from_json(stored) == stopping
    del stored["weights"]
    assert StoppingRule.from_json(stored).looks.n == 8


def _ensemble(n_images: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three voices that differ from one another more than their views do."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 7, n_images)
    logits = generator.normal(0, 1.0, (n_images, 1, 1, 7)) + 4.0 * np.eye(7)[labels][:, None, None]
    logits = (
        logits + generator.normal(0, 0.6, (n_images, 3, 1, 7)) + generator.normal(0, 0.3, (n_images, 3, 8, 7))
    )
    values = np.exp(logits)
    voices = (values / values.sum(-1, keepdims=True)).astype(np.float32)
    return voices, labels, np.arange(n_images).astype(str)


def test_single_looks_need_fewer_forward_passes_than_whole_views_and_keep_their_word() -> None:
    voices, labels, lesions = _ensemble(3000, 0)
    weights = (1 / 3, 1 / 3, 1 / 3)
    fit = fit_stopping(DecisionRule(), voices[:1500], labels[:1500], lesions[:1500], weights)
    whole = voices[:1500].mean(axis=1, keepdims=True)
    by_views = fit_stopping(DecisionRule(), whole, labels[:1500], lesions[:1500])
    assert (fit.n_looks, by_views.n_looks) == (24, 8)
    assert fit.mean_looks < 0.8 * 3 * by_views.mean_looks
    assert sum(fit.look_shares) == pytest.approx(1.0)
    assert fit.upper_bound <= 0.005
    means, _ = stopped_means(fit.stopping, voices[1500:])
    full = voices[1500:].mean(axis=(1, 2))
    assert (means.argmax(1) != full.argmax(1)).mean() <= 0.005
