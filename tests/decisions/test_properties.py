"""What must hold for any predictions whatever."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from skinlesion_cli.decisions.calibration import apply_temperature
from skinlesion_cli.decisions.ensemble import bacc_weights, combine
from skinlesion_cli.decisions.evaluation.figures import thresholded
from skinlesion_cli.decisions.levels import LEVELS
from skinlesion_cli.decisions.policies import guaranteed
from skinlesion_cli.decisions.policies.published import published_thresholds
from skinlesion_cli.decisions.settings import FitSettings, Target
from skinlesion_cli.decisions.statistics import bounds
from skinlesion_cli.decisions.statistics.metrics import balanced_accuracy, scored_argmax
from skinlesion_cli.decisions.thresholds import decide
from skinlesion_cli.decisions.triage import DecisionRule, apply_rule, malignant_probability
from tests.support.class_lists import ISIC2018


@st.composite
def labelled(draw, least: int = 1, most: int = 40):
    """Labels, probabilities (some of them 0, 1 or tied) and lesion ids that fit the labels."""
    n = draw(st.integers(least, most))
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    classes = generator.integers(0, 7, max(n // 2, 1))
    lesion = generator.integers(0, len(classes), n)
    coarse = draw(st.sampled_from([1, 4, 1000]))
    raw = np.floor(generator.dirichlet(np.full(7, 0.4), n) * coarse)
    raw[raw.sum(axis=1) == 0, 0] = 1.0
    values = (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)
    return classes[lesion], values, lesion.astype(str)


@given(labelled(), st.floats(0.05, 20))
@settings(max_examples=60, deadline=None)
def test_temperature_keeps_sums_and_order(case, temperature):
    _, values, _ = case
    found = apply_temperature(values, temperature)
    assert np.isfinite(found).all()
    assert np.allclose(found.sum(axis=1), 1.0, atol=1e-5)
    assert ((found == 0) >= (values == 0)).all()
    rows = np.arange(len(values))
    assert (found[rows, values.argmax(axis=1)] >= found.max(axis=1) - 1e-7).all()


@given(labelled(), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
@settings(max_examples=60, deadline=None)
def test_the_decision_is_the_argmax_or_a_class_whose_threshold_fired(case, mel, akiec):
    _, values, _ = case
    thresholds = {"MEL": mel, "AKIEC": akiec}
    found = decide(values, thresholds, ISIC2018)
    fired = found.fired >= 0
    assert (found.decided[~fired] == found.argmax[~fired]).all()
    assert (found.decided[fired] == found.fired[fired]).all()
    p = values.astype(np.float64)
    assert ((p[:, 0] > mel) == (found.fired == 0)).all()
    assert (((p[:, 3] > akiec) & (p[:, 0] <= mel)) == (found.fired == 3)).all()


@given(labelled(), st.floats(0.0, 0.99), st.floats(0.001, 0.5))
@settings(max_examples=60, deadline=None)
def test_a_higher_threshold_never_fires_more(case, theta, more):
    _, values, _ = case
    low, high = (
        decide(values, {"MEL": theta}, ISIC2018).fired == 0,
        decide(values, {"MEL": theta + more}, ISIC2018).fired == 0,
    )
    assert not (high & ~low).any()


@given(labelled(least=2))
@settings(max_examples=60, deadline=None)
def test_policies_answer_whatever_comes(case):
    labels, values, lesions = case
    targets = [Target("MEL", 0.6, 0.6), Target("AKIEC", 0.5, 0.5), Target("BKL", 0.5)]
    found = guaranteed.find(labels, values, lesions, FitSettings(targets=tuple(targets)), ISIC2018)
    assert set(found.alarms) == {"MEL", "AKIEC", "BKL", "malignant"}
    assert found.thresholds == {}
    for guarantee in found.guarantees:
        classes = {"MEL": [0], "AKIEC": [3], "BKL": [4], "malignant": [0, 2, 3]}[guarantee.class_name]
        assert 0.0 <= guarantee.threshold <= 1.0
        assert guarantee.lesions == len(set(lesions[np.isin(labels, classes)]))
        assert guarantee.granted or guarantee.reason
    assert all(
        0.0 < theta < 1.0
        for theta in published_thresholds(labels, values, targets, ISIC2018).thresholds.values()
    )


@given(st.integers(0, 300), st.floats(0.3, 0.99), st.floats(0.5, 0.99))
@settings(max_examples=60, deadline=None)
def test_bounds_are_monotone(n, share, confidence):
    here = bounds.allowed_misses(n, share, confidence)
    assert -1 <= here <= n * (1 - share) + 1
    assert bounds.allowed_misses(n, min(share + 0.005, 0.995), confidence) <= here
    assert bounds.allowed_misses(n, share, min(confidence + 0.005, 0.995)) <= here
    assert bounds.allowed_misses(n + 50, share, confidence, 10**6) >= bounds.allowed_misses(
        n, share, confidence, 10**6
    )


@given(labelled(), st.lists(st.floats(0.01, 1.0), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_an_ensemble_lies_between_its_members(case, bacc):
    _, values, _ = case
    stack = np.stack([np.roll(values, shift, axis=0) for shift in range(len(bacc))])
    found = combine(stack, bacc_weights(bacc))
    assert (found <= stack.max(axis=0) + 1e-6).all()
    assert (found >= stack.min(axis=0) - 1e-6).all()
    assert np.allclose(found.sum(axis=1), 1.0, atol=1e-5)


@given(labelled())
@settings(max_examples=60, deadline=None)
def test_triage_and_the_official_table_answer_whatever_comes(case):
    labels, values, _ = case
    rule = DecisionRule(
        ISIC2018, thresholds={"MEL": 0.3}, malignant_threshold=0.4, conformal_minimum=(0.1,) * 7
    )
    found = apply_rule(rule, values)
    assert set(found.triage) <= set(LEVELS)
    referred = (malignant_probability(values, ISIC2018).astype(float) > 0.4) | np.isin(
        found.decisions.decided, [0, 2, 3]
    )
    assert not (referred & (found.triage == "routine")).any()
    assert (scored_argmax(thresholded(values, found.decisions.decided)) == found.decisions.decided).all()
    assert 0.0 <= balanced_accuracy(labels, found.decisions.decided) <= 1.0
