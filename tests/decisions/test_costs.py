"""Thresholds of the least cost."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.decisions.policies.cost import (
    NEVER,
    checked_costs,
    cost_matrix,
    cost_thresholds,
)
from skinlesion_cli.decisions.policies.registry import policy_of
from skinlesion_cli.decisions.settings import FitSettings
from skinlesion_cli.decisions.thresholds import decide
from skinlesion_cli.errors import UsageError
from tests.support import synthetic
from tests.support.class_lists import ISIC2018

MISSED = {"MEL": 20.0, "BCC": 5.0, "AKIEC": 5.0}


def test_the_matrix_by_hand():
    found = cost_matrix(MISSED, ISIC2018, unneeded=2.0)
    assert found[0].tolist() == [0, 20, 0, 0, 20, 20, 20]  # melanoma: missed where decided benign
    assert found[1].tolist() == [2, 0, 2, 2, 0, 0, 0]  # nevus: referred where decided malignant
    assert np.diagonal(found).tolist() == [0] * 7


def test_one_threshold_by_hand():
    # Melanomas at 0.10 and 0.40, nevi at 0.05, 0.20, 0.30. θ between 0.05 and 0.10 costs two referrals (2),
    # between 0.30 and 0.40 one melanoma (20 or 1.5).
    mel = np.array([0.10, 0.40, 0.05, 0.20, 0.30])
    values = np.zeros((5, 7))
    values[:, 0], values[:, 1] = mel, 1 - mel
    labels, lesions = np.array([0, 0, 1, 1, 1]), np.arange(5).astype(str)
    found = cost_thresholds(labels, values, lesions, cost_matrix(MISSED, ISIC2018), ISIC2018, codes=["MEL"])
    assert found["MEL"] == pytest.approx(0.075)
    cheap = cost_thresholds(
        labels, values, lesions, cost_matrix(MISSED | {"MEL": 1.5}, ISIC2018), ISIC2018, ["MEL"]
    )
    assert cheap["MEL"] == pytest.approx(0.35)


def test_equal_scores_are_cut_as_a_whole():
    # One melanoma and two nevi at 0.3: all are referred (2 for 2.5) or none.
    values = np.zeros((3, 7))
    values[:, 0], values[:, 1] = 0.3, 0.7
    labels, lesions = np.array([0, 1, 1]), np.arange(3).astype(str)
    dear = cost_thresholds(
        labels, values, lesions, cost_matrix(MISSED | {"MEL": 2.5}, ISIC2018), ISIC2018, ["MEL"]
    )
    assert dear["MEL"] == pytest.approx(0.15)
    cheap = cost_thresholds(
        labels, values, lesions, cost_matrix(MISSED | {"MEL": 1.5}, ISIC2018), ISIC2018, ["MEL"]
    )
    assert cheap["MEL"] == NEVER


def test_a_class_without_images_never_fires():
    labels, values = np.array([1, 1, 1]), np.full((3, 7), 1 / 7)
    found = cost_thresholds(labels, values, np.arange(3).astype(str), cost_matrix(MISSED, ISIC2018), ISIC2018)
    assert found == {"MEL": NEVER, "BCC": NEVER, "AKIEC": NEVER}


def test_it_is_cheaper_than_the_argmax_and_no_single_threshold_can_be_bettered():
    labels, values, lesions = synthetic.predictions(500, 31)
    costs = cost_matrix(MISSED, ISIC2018)
    _, codes, sizes = np.unique(lesions, return_inverse=True, return_counts=True)
    weights = 1 / sizes[codes]
    found = cost_thresholds(labels, values, lesions, costs, ISIC2018)

    def cost(thresholds: dict[str, float]) -> float:
        return float(np.average(costs[labels, decide(values, thresholds, ISIC2018).decided], weights=weights))

    best = cost(found)
    assert best < cost({})
    for name in found:
        for theta in np.linspace(0.005, 0.995, 100):
            assert cost(found | {name: float(theta)}) >= best - 1e-12


def test_costs_are_never_guessed():
    with pytest.raises(UsageError, match="costs"):
        policy_of(FitSettings(policy="cost"), ISIC2018)
    with pytest.raises(UsageError, match="AKIEC"):
        cost_matrix({"MEL": 20.0}, ISIC2018)
    with pytest.raises(UsageError, match="NV"):
        cost_matrix(MISSED | {"NV": 1.0}, ISIC2018)
    with pytest.raises(UsageError, match="7"):
        checked_costs([[0.0, 1.0], [1.0, 0.0]], ISIC2018)
    with pytest.raises(UsageError):
        checked_costs(np.full((7, 7), -1.0), ISIC2018)
