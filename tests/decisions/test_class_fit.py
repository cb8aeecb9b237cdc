"""The class of the best balanced accuracy."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from skinlesion_cli.decisions.class_fit import fit_class_offsets
from skinlesion_cli.decisions.fit import cross_fit
from skinlesion_cli.decisions.settings import FitSettings
from skinlesion_cli.decisions.thresholds import class_scores, decide
from tests.support import synthetic
from tests.support.class_lists import ISIC2018


def test_where_probabilities_are_right_the_offsets_are_the_prior_correction():
    # Draw the class from the probabilities themselves: p / prior is the Bayes rule for balanced accuracy.
    rng = np.random.default_rng(1)
    values = rng.dirichlet(np.array([1.0, 6.0, 0.6, 0.6, 1.2, 0.4, 0.4]), 30_000)
    labels = (rng.random(30_000)[:, None] > values.cumsum(axis=1)).sum(axis=1).clip(0, 6)
    prior = np.bincount(labels, minlength=7) / len(labels)
    wanted = -np.log(prior) + np.log(prior).mean()
    assert fit_class_offsets(labels, values) == pytest.approx(wanted, abs=0.12)


def test_it_recognises_rare_classes_that_the_argmax_misses():
    labels, values, lesions = synthetic.predictions(1500, 61, strength=2.0)
    found = cross_fit(labels, values, lesions, FitSettings(), ISIC2018).decided
    gain = balanced_accuracy_score(labels, found) - balanced_accuracy_score(labels, values.argmax(axis=1))
    assert gain > 0.05


def test_offsets_by_hand():
    row = np.array([[0.2, 0.8, 0, 0, 0, 0, 0]])
    assert class_scores(row, (1, 0, 0, 0, 0, 0, 0))[0, :2] == pytest.approx([np.log(0.2) + 1, np.log(0.8)])
    # 0.2 · e^1.3 = 0.73 < 0.8 < 0.2 · e^1.4 = 0.81.
    assert decide(row, {}, ISIC2018, (), (1.3, 0, 0, 0, 0, 0, 0)).decided.tolist() == [1]
    assert decide(row, {}, ISIC2018, (), (1.4, 0, 0, 0, 0, 0, 0)).decided.tolist() == [0]
    # A threshold overrides all of it.
    assert decide(row, {"NV": 0.5}, ISIC2018, (), (1.4, 0, 0, 0, 0, 0, 0)).decided.tolist() == [1]


def test_a_class_without_images_has_the_mean_offset():
    labels, values, _ = synthetic.predictions(400, 62)
    kept = (labels != 5) & (labels != 6)
    offsets = fit_class_offsets(labels[kept], values[kept])
    assert offsets[5] == offsets[6] == 0.0
    assert sum(offsets) == pytest.approx(0.0, abs=1e-9)
