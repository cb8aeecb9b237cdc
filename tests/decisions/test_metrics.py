"""Figures on labels worked out by hand; undefined is NaN."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.decisions.statistics import metrics
from skinlesion_cli.errors import DataError
from tests.support.class_lists import ISIC2018

# MEL NV BCC AKIEC BKL DF VASC = 0 ... 6
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 3])
DECIDED = np.array([0, 0, 0, 1, 1, 1, 0, 2, 3, 1])


def test_recalls_by_hand():
    found = metrics.recalls(LABELS, DECIDED, 7)
    assert found[:4].tolist() == pytest.approx([3 / 4, 2 / 3, 1 / 2, 0.0])
    assert np.isnan(found[4:]).all()


def test_balanced_accuracy_is_the_mean_over_classes_with_images():
    assert metrics.balanced_accuracy(LABELS, DECIDED) == pytest.approx((3 / 4 + 2 / 3 + 1 / 2 + 0) / 4)
    assert metrics.missing_classes(LABELS, ISIC2018) == ("BKL", "DF", "VASC")


def test_specificity_by_hand():
    # Of 6 images that are no melanoma, one (an NV) is called so.
    assert metrics.specificity(LABELS, DECIDED, 0) == pytest.approx(5 / 6)


def test_undefined_is_nan_never_zero_or_one():
    only_nevi = np.array([1, 1])
    assert np.isnan(metrics.sensitivity(only_nevi, only_nevi, 0))
    assert np.isnan(metrics.specificity(only_nevi, only_nevi, 1))
    assert metrics.specificity(only_nevi, only_nevi, 0) == 1.0
    none = np.empty(0, dtype=int)
    assert np.isnan(metrics.balanced_accuracy(none, none))


def test_no_decision_is_never_right():
    assert metrics.recalls(np.array([0, 0]), np.array([0, -1]), 7)[0] == 0.5
    assert metrics.confusion_matrix(np.array([0, 0]), np.array([0, -1]), 7)[0].tolist() == [
        1,
        0,
        0,
        0,
        0,
        0,
        0,
        1,
    ]


def test_a_tie_for_the_maximum_is_no_decision():
    rows = np.array([[0.4, 0.4, 0.2, 0, 0, 0, 0], [0.1, 0.6, 0.3, 0, 0, 0, 0]])
    assert metrics.scored_argmax(rows).tolist() == [-1, 1]


def test_agrees_with_scikit_learn():
    from sklearn.metrics import balanced_accuracy_score

    generator = np.random.default_rng(0)
    labels, decided = generator.integers(0, 7, 300), generator.integers(0, 7, 300)
    assert metrics.balanced_accuracy(labels, decided) == pytest.approx(
        balanced_accuracy_score(labels, decided)
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.1, 1.1])
def test_what_is_no_probability_is_refused_and_its_row_named(bad: float):
    rows = np.full((3, 7), 1 / 7)
    rows[1, 2] = bad
    with pytest.raises(DataError, match="row 1"):
        metrics.checked(rows)


def test_a_wrong_shape_is_refused():
    with pytest.raises(DataError, match="shape"):
        metrics.checked(np.ones(6) / 6)
