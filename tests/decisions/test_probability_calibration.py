"""Temperature, vector scaling and what they are judged by."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn
from packaging import version

from skinlesion_cli.decisions.calibration import ProbabilityCalibration, apply_linear, apply_temperature
from skinlesion_cli.decisions.probability_fit import fit, sharpness
from skinlesion_cli.errors import DataError
from tests.support import synthetic


def test_temperature_by_hand():
    # p^(1/2): 0.64 -> 0.8, 0.36 -> 0.6; divided by 1.4.
    row = np.array([[0.64, 0.36, 0, 0, 0, 0, 0]])
    assert apply_temperature(row, 2.0)[0, :2] == pytest.approx([0.8 / 1.4, 0.6 / 1.4], abs=1e-7)
    # T = 1/2: squares.
    assert apply_temperature(row, 0.5)[0, 0] == pytest.approx(0.4096 / (0.4096 + 0.1296), abs=1e-7)


def test_zero_and_one_stay_as_they_are_at_any_temperature():
    sure = np.eye(7, dtype=np.float32)
    for temperature in (0.01, 1.0, 100.0):
        assert (apply_temperature(sure, temperature) == sure).all()


def test_tiny_probabilities_do_not_vanish_or_overflow():
    row = np.array([[1e-30, 1.0, 0, 0, 0, 0, 0]])
    found = apply_temperature(row, 30.0)
    assert np.isfinite(found).all()
    assert found[0, 0] == pytest.approx(0.1 / 1.1, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_what_is_no_temperature(temperature: float):
    with pytest.raises(DataError):
        apply_temperature(np.full((1, 7), 1 / 7), temperature)


def test_vector_by_hand():
    # Weights 1 and a bias of log 2 on NV: its odds double.
    row = np.array([[0.5, 0.5, 0, 0, 0, 0, 0]])
    found = apply_linear(row, np.ones(7), np.array([0, np.log(2), 0, 0, 0, 0, 0]))
    assert found[0, :2] == pytest.approx([1 / 3, 2 / 3], abs=1e-6)


def test_the_temperature_is_scikit_learns():
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    class Stored(ClassifierMixin, BaseEstimator):
        """Hands back the probabilities that it is given."""

        def __init__(self):
            self.classes_ = np.arange(7)

        def fit(self, x, y):
            return self

        def __sklearn_is_fitted__(self):
            return True

        def predict(self, x):
            return x.argmax(axis=1)

        def predict_proba(self, x):
            return x

    labels, values, _ = synthetic.predictions(900, 4)
    values = values.astype(np.float64) / values.sum(axis=1, keepdims=True, dtype=np.float64)
    if version.parse(sklearn.__version__) < version.parse("1.8"):
        pytest.skip(f"scikit-learn {sklearn.__version__} has no temperature scaling (1.8 has)")
    reference = CalibratedClassifierCV(FrozenEstimator(Stored()), method="temperature").fit(values, labels)
    mine = fit(labels, values, "temperature").apply(values)
    assert mine == pytest.approx(reference.predict_proba(values), abs=1e-4)


def test_fit_finds_the_temperature_that_was_put_in():
    labels, values, _ = synthetic.predictions(3000, 7)
    here = fit(labels, values, "temperature").temperature
    sharper = apply_temperature(values, 0.4)
    assert fit(labels, sharper, "temperature").temperature == pytest.approx(here / 0.4, rel=1e-3)


def test_a_class_missing_from_the_labels_is_no_obstacle():
    labels, values, _ = synthetic.predictions(500, 8)
    seen = labels != 6
    for method in ("temperature", "vector"):
        found = fit(labels[seen], values[seen], method).apply(values)
        assert np.isfinite(found).all()
        assert found.sum(axis=1) == pytest.approx(1.0, abs=1e-5)


def test_no_images_to_fit_on():
    with pytest.raises(DataError):
        fit(np.empty(0, dtype=int), np.empty((0, 7)), "temperature")


def test_sharpness_by_hand():
    values = np.array([[0.8, 0.2, 0, 0, 0, 0, 0], [0.4, 0.6, 0, 0, 0, 0, 0]])
    found = sharpness(np.array([0, 0]), values)
    # Bins of width 1/15: 0.8 in [12/15, 13/15), right: gap 0.2; 0.6 in [9/15, 10/15), wrong: gap -0.6.
    assert found.ece == pytest.approx((0.2 + 0.6) / 2)
    assert found.brier == pytest.approx((0.04 + 0.04 + 0.36 + 0.36) / 2)
    assert found.log_loss == pytest.approx(-(np.log(0.8) + np.log(0.4)) / 2)


def test_a_certain_mistake_costs_much_but_not_infinitely_much():
    found = sharpness(np.array([1]), np.eye(7)[[0]])
    assert found.log_loss == pytest.approx(-np.log(1e-12))


def test_it_helps_where_confidence_is_wrong():
    labels, values, _ = synthetic.predictions(1500, 10)
    overconfident = apply_temperature(values, 0.4)
    # Synthetic lesions are independent: one half fits, the other judges.
    fitted = fit(labels[:750], overconfident[:750], "temperature")
    before = sharpness(labels[750:], overconfident[750:])
    after = sharpness(labels[750:], fitted.apply(overconfident[750:]))
    assert after.ece < before.ece
    assert after.log_loss < before.log_loss


def test_parameters_are_of_one_number_of_classes():
    with pytest.raises(DataError):
        ProbabilityCalibration("vector", weights=(1.0, 1.0), biases=(0.0,))
    with pytest.raises(DataError):
        ProbabilityCalibration("vector")
    with pytest.raises(DataError):
        ProbabilityCalibration("dirichlet", matrix=((1.0, 0.0), (0.0,)), biases=(0.0, 0.0))
    of_two = ProbabilityCalibration("vector", weights=(1.0, 1.0), biases=(0.0, 0.0))
    assert of_two.n_classes == 2
    with pytest.raises(DataError, match="2 classes"):
        of_two.apply(np.full((1, 3), 1 / 3))
    assert ProbabilityCalibration("temperature", 2.0).n_classes is None
