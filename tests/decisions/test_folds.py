"""Folds hold whole lesions."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.decisions.fit import cross_fit
from skinlesion_cli.decisions.settings import FitSettings
from skinlesion_cli.decisions.statistics.folds import grouped_folds
from skinlesion_cli.errors import DataError
from tests.support import synthetic
from tests.support.class_lists import ISIC2018


def test_no_lesion_on_both_sides_and_every_image_once():
    labels, _, lesions = synthetic.predictions(203, 91)
    folds = list(grouped_folds(labels, lesions, 5))
    assert len(folds) == 5
    for train, held_out in folds:
        assert not set(lesions[train]) & set(lesions[held_out])
        assert len(train) + len(held_out) == len(labels)
    assert sorted(np.concatenate([held_out for _, held_out in folds])) == list(range(len(labels)))


def test_classes_are_dealt_out_evenly():
    labels = np.repeat([0, 1], [10, 40])
    for _, held_out in grouped_folds(labels, np.arange(50).astype(str), 5):
        assert np.bincount(labels[held_out]).tolist() == [2, 8]


def test_fewer_lesions_than_folds():
    assert len(list(grouped_folds(np.array([0, 1, 1]), np.array(["a", "b", "c"]), 5))) == 3
    with pytest.raises(DataError, match="at least 2 lesions"):
        list(grouped_folds(np.array([0, 0]), np.array(["a", "a"]), 5))


def test_a_lesion_does_not_move_its_own_decision():
    """An image changes the fits of the other folds; in its own fold nothing was fitted on it."""
    labels, values, lesions = synthetic.predictions(250, 92)
    settings = FitSettings(policy="published", probability_method="vector")
    before = cross_fit(labels, values, lesions, settings, ISIC2018)
    folds = list(grouped_folds(labels, lesions, 5))
    train, held_out = folds[0]
    moved = values.copy()
    moved[held_out[0]] = np.eye(7)[3]
    after = cross_fit(labels, moved, lesions, settings, ISIC2018)
    same_fold = held_out[1:]
    assert (after.probabilities[same_fold] == before.probabilities[same_fold]).all()
    assert (after.probabilities[train] != before.probabilities[train]).any()
