"""When an image has been seen often enough: the way to the nearest boundary, and the rule that is fitted."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.decisions.adaptive.fit import fit_stopping, upper_bound
from skinlesion_cli.decisions.adaptive.stopping import (
    StoppingRule,
    changed,
    margin,
    parse_protects,
    stopped_means,
)
from skinlesion_cli.decisions.calibration import ProbabilityCalibration
from skinlesion_cli.decisions.triage import DecisionRule
from skinlesion_cli.errors import DataError, UsageError
from tests.support.class_lists import ISIC2018


def test_the_margin_is_the_way_to_the_nearest_boundary() -> None:
    rule = DecisionRule(ISIC2018, thresholds={"MEL": 0.3, "AKIEC": 0.4}, malignant_threshold=0.6)
    probabilities = np.array(
        [
            [0.20, 0.70, 0.0, 0.0, 0.10, 0.0, 0.0],
            [0.35, 0.55, 0.0, 0.0, 0.10, 0.0, 0.0],
            [0.28, 0.17, 0.0, 0.55, 0.0, 0.0, 0.0],
            [0.05, 0.45, 0.25, 0.25, 0.0, 0.0, 0.0],
        ]
    )
    # NV leads by ln 3.5 = 1.2528; MEL is short of firing by logit 0.3 - logit 0.2 = -0.8473 + 1.3863 =
    # 0.5390. MEL fires, over by logit 0.35 - logit 0.3 = -0.6190 + 0.8473 = 0.2283.
    # AKIEC fires, over by logit 0.55 - logit 0.4 = 0.6061; MEL would win, short by -0.8473 + 0.9445 = 0.0972.
    # NV leads by ln 1.8 = 0.5878; AKIEC is short by logit 0.4 - logit 0.25 = -0.4055 + 1.0986 = 0.6931.
    np.testing.assert_allclose(margin(rule, probabilities), [0.5390, 0.2283, 0.0972, 0.5878], atol=1e-4)
    # The last is benign with 0.55 malignant: logit 0.6 - logit 0.55 = 0.4055 - 0.2007 = 0.2048 from referral.
    # The first has 0.2: 1.7918 away, further than MEL's threshold.
    protected = margin(rule, probabilities, "triage")
    np.testing.assert_allclose(protected, [0.5390, 0.2283, 0.0972, 0.2048], atol=1e-4)


def test_the_margin_of_the_triage_level_counts_the_prediction_set() -> None:
    # Every class is held from 0.3 on. NV at 0.6 is in by logit 0.6 - logit 0.3 = 0.4055 + 0.8473 = 1.2528; of
    # the malignant, MEL at 0.25 is nearest: short by logit 0.3 - logit 0.25 = -0.8473 + 1.0986 = 0.2513.
    rule = DecisionRule(ISIC2018, conformal_minimum=(0.3,) * 7)
    probabilities = np.array([[0.25, 0.60, 0.05, 0.0, 0.10, 0.0, 0.0]])
    np.testing.assert_allclose(margin(rule, probabilities, "triage"), [0.2513], atol=1e-4)
    # The decision alone: NV leads by ln 2.4.
    np.testing.assert_allclose(margin(rule, probabilities), [np.log(2.4)], atol=1e-9)


def test_a_malignant_decision_is_referred_whatever_the_operating_point() -> None:
    # MEL decides by argmax, ln(0.5 / 0.4) = 0.2231 ahead; 0.5 malignant is 0 from the operating point,
    # and no matter.
    rule = DecisionRule(ISIC2018, malignant_threshold=0.5)
    probabilities = np.array([[0.5, 0.4, 0.0, 0.0, 0.1, 0.0, 0.0]])
    np.testing.assert_allclose(margin(rule, probabilities, "triage"), [0.2231], atol=1e-4)


def test_convergence_is_strict_and_always_reached_after_the_last_step() -> None:
    stopping = StoppingRule(DecisionRule(ISIC2018), margin_factor=1.0, n_views=2)
    even = np.array([[0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0]])
    assert stopping.converged(even, 1).tolist() == [False]
    last = stopping.converged(np.repeat(even, 3, axis=0), 2)
    assert last.tolist() == [True, True, True]
    assert last.dtype == bool


def test_convergence_minds_what_is_protected() -> None:
    # NV leads by ln 2 = 0.69; 0.3 malignant is logit 0.32 - logit 0.3 = 0.0935 from referral. One look of two
    # views has a spread of sqrt(1/2) = 0.71, times 0.5.
    rule = DecisionRule(ISIC2018, malignant_threshold=0.32)
    probabilities = np.array([[0.30, 0.60, 0.0, 0.0, 0.10, 0.0, 0.0]])
    by_class = StoppingRule(rule, margin_factor=0.5, n_views=2)
    by_level = StoppingRule(rule, margin_factor=0.5, n_views=2, protects="triage")
    assert by_class.converged(probabilities, 1).tolist() == [True]
    assert by_level.converged(probabilities, 1).tolist() == [False]


def test_what_changed_is_the_class_or_the_level_too() -> None:
    rule = DecisionRule(ISIC2018, malignant_threshold=0.32)
    first = np.array([[0.30, 0.60, 0.0, 0.0, 0.10, 0.0, 0.0]] * 2)
    second = np.array([[0.34, 0.56, 0.0, 0.0, 0.10, 0.0, 0.0], [0.60, 0.30, 0.0, 0.0, 0.10, 0.0, 0.0]])
    assert changed(rule, first, second).tolist() == [False, True]
    assert changed(rule, first, second, "triage").tolist() == [True, True]


def test_a_stored_rule_is_the_same_rule() -> None:
    rule = DecisionRule(
        ISIC2018,
        probability_calibration=ProbabilityCalibration("vector", 1.0, (1.0,) * 6 + (2.0,), (0.5,) * 7),
        thresholds={"MEL": 0.3, "AKIEC": 0.4},
        priority=("AKIEC", "MEL"),
        malignant_threshold=0.6,
        conformal_minimum=(0.1,) * 7,
    )
    stopping = StoppingRule(rule, 1.5, 8, "triage", (0.25, 0.75))
    assert StoppingRule.from_json(stopping.to_json(), ISIC2018) == stopping


def test_nothing_else_can_be_protected() -> None:
    assert [parse_protects(name) for name in (None, "decision", "triage")] == [None, "decision", "triage"]
    with pytest.raises(UsageError, match="'views'"):
        parse_protects("views")


def test_the_upper_bound_is_exact() -> None:
    # No hit in n: 1 - 0.05 ** (1 / n). 598 is the least n for 0.5 %.
    assert upper_bound(0, 598) == pytest.approx(1 - 0.05 ** (1 / 598))
    assert upper_bound(0, 598) < 0.005 < upper_bound(0, 597)
    assert upper_bound(3, 3) == 1.0


def _by_view(n_images: int, noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 7, n_images)
    logits = generator.normal(0, 1.0, (n_images, 1, 7)) + 4.0 * np.eye(7)[labels][:, None]
    logits = logits + noise * generator.normal(size=(n_images, 8, 7))
    values = np.exp(logits)
    return (
        (values / values.sum(-1, keepdims=True)).astype(np.float32),
        labels,
        np.arange(n_images).astype(str),
    )


def test_the_fitted_rule_keeps_its_word_on_new_images() -> None:
    by_view, labels, lesions = _by_view(3000, 0.5)
    fit = fit_stopping(DecisionRule(ISIC2018), by_view[:1500, None], labels[:1500], lesions[:1500])
    assert fit.upper_bound <= 0.005
    assert fit.mean_steps < 6
    means, _ = stopped_means(fit.stopping, by_view[1500:, None])
    full = by_view[1500:].mean(axis=1)
    assert (means.argmax(1) != full.argmax(1)).mean() <= 0.005


def test_noisier_views_need_more_of_them() -> None:
    calm, labels, lesions = _by_view(1500, 0.2)
    noisy, _, _ = _by_view(1500, 1.5)
    views = [
        fit_stopping(DecisionRule(ISIC2018), found[:, None], labels, lesions).mean_steps
        for found in (calm, noisy)
    ]
    assert views[0] < views[1]


def test_too_few_lesions_guarantee_nothing() -> None:
    by_view, labels, lesions = _by_view(400, 0.5)
    with pytest.raises(DataError, match="at least 598 lesions"):
        fit_stopping(DecisionRule(ISIC2018), by_view[:, None], labels, lesions)
