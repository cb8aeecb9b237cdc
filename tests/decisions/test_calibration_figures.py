"""Calibration by class, against statsmodels and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from skinlesion_cli.decisions.evaluation.calibration_figures import (
    calibrated,
    calibration_figures,
    reliability,
)
from tests.support import synthetic
from tests.support.class_lists import ISIC2018


def test_intercept_and_slope_are_those_of_statsmodels():
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(2)
    p = rng.beta(1, 5, 800)
    truth = rng.random(800) < p**1.4
    odds = np.log(p / (1 - p))
    found = calibrated(p, truth)
    family = sm.families.Binomial()
    intercept = sm.GLM(truth.astype(float), np.ones((800, 1)), family=family, offset=odds).fit().params[0]
    slope = sm.GLM(truth.astype(float), sm.add_constant(odds), family=family).fit().params[1]
    assert found.intercept == pytest.approx(intercept, abs=1e-7)
    assert found.slope == pytest.approx(slope, abs=1e-7)
    assert found.intercept < -0.2  # too much was predicted


def test_the_error_by_hand():
    # Bins of 1/15: 0.1 and 0.12 in the second (0.0667 to 0.1333), 0.9 in the fourteenth.
    found = calibrated(np.array([0.1, 0.12, 0.9]), np.array([True, False, True]))
    assert found.error == pytest.approx((abs(1 - 0.22) + abs(1 - 0.9)) / 3)
    assert (found.mean_predicted, found.observed) == pytest.approx((1.12 / 3, 2 / 3))


def test_what_has_no_slope_is_undefined():
    for truth in ([True, True, True], [False, False, False]):
        found = calibrated(np.array([0.1, 0.5, 0.9]), np.array(truth))
        assert np.isnan([found.intercept, found.slope]).all()
    # Separated: the slope would be infinite.
    assert np.isnan(calibrated(np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True])).slope)
    assert np.isnan(calibrated(np.empty(0), np.empty(0, bool)).observed)


def test_the_reliability_curve_is_scikit_learns():
    rng = np.random.default_rng(5)
    p = rng.random(1000)
    truth = rng.random(1000) < p
    found = reliability(p, truth)
    observed, predicted = calibration_curve(truth, p, n_bins=10, strategy="quantile")
    assert [each.observed for each in found] == pytest.approx(observed, abs=0.011)
    assert [each.mean_predicted for each in found] == pytest.approx(predicted, abs=0.001)
    assert all(each.low <= each.observed <= each.high for each in found)
    assert sum(each.images for each in found) == 1000


def test_what_the_top_class_hides():
    """Two classes confused in equal numbers leave the top class's error small, and each class's large."""
    labels, values, _ = synthetic.predictions(1500, 66)
    found = calibration_figures(labels, values, ISIC2018)
    assert set(found["by_class"]) == {"MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC", "malignant"}
    per_class = [
        found["by_class"][name]["error"] for name in ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
    ]
    assert found["class_error"] == pytest.approx(np.mean(per_class))
    assert len(found["malignant_reliability"]) == 10
