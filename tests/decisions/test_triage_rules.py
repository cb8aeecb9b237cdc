"""Refer, review, routine; conformal sets; the operating point."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.decisions.statistics.bounds import allowed_misses
from skinlesion_cli.decisions.statistics.lesions import group, votes
from skinlesion_cli.decisions.thresholds import decide
from skinlesion_cli.decisions.triage import (
    DecisionRule,
    apply_rule,
    conformal_set,
    malignant_probability,
    triage_levels,
)
from skinlesion_cli.decisions.triage_fit import conformal_minima, malignant_operating_point
from tests.support import synthetic


def test_malignant_probability_by_hand():
    found = malignant_probability(
        np.array([[0.1, 0.4, 0.2, 0.05, 0.25, 0, 0], [1 / 3, 0, 1 / 3, 1 / 3, 0, 0, 0]])
    )
    assert found.tolist() == pytest.approx([0.35, 1.0])
    assert found.max() <= 1.0


def sets(*names: str) -> np.ndarray:
    order = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
    return np.array([[name in row.split("+") for name in order] for row in names])


def test_levels_one_by_one():
    # decided NV five times, then melanoma twice
    decided = np.array([1, 1, 1, 1, 1, 0, 0])
    malignant = np.array([0.1, 0.5, 0.1, 0.1, 0.1, 0.9, 0.9])
    found = triage_levels(decided, malignant, 0.3, sets("NV", "NV", "NV+MEL", "", "MEL", "MEL+BCC", "MEL+NV"))
    assert found.tolist() == ["routine", "refer", "review", "review", "review", "refer", "review"]


def test_a_doubtful_image_is_reviewed_whatever_else():
    found = triage_levels(
        np.array([1, 0]), np.array([0.0, 1.0]), 0.3, sets("NV", "MEL"), np.array([True, True])
    )
    assert found.tolist() == ["review", "review"]


def test_at_the_operating_point_nothing_is_referred():
    assert triage_levels(np.array([1]), np.array([0.3], np.float64), 0.3, None).tolist() == ["routine"]
    assert triage_levels(np.array([1]), np.array([0.3000001]), 0.3, None).tolist() == ["refer"]


def test_a_malignant_decision_refers_below_the_operating_point():
    assert triage_levels(np.array([3]), np.array([0.1]), 0.3, None).tolist() == ["refer"]


def test_conformal_minima_by_hand():
    # 19 lesions of NV: floor(0.1 * 20) = 2, the second lowest. 8 of MEL: floor(0.9) = 0, never left out.
    values = np.zeros((27, 7))
    values[:19, 1] = np.arange(1, 20) / 20
    values[:19, 0] = 1 - values[:19, 1]
    values[19:, 0] = 0.6
    values[19:, 1] = 0.4
    labels = np.array([1] * 19 + [0] * 8)
    found = conformal_minima(labels, values, np.arange(27).astype(str), 0.90)
    assert found[:3] == pytest.approx((0.0, 0.10, 0.0))
    assert conformal_set(values[:2], np.array(found))[:, 1].tolist() == [False, True]


def test_conformal_sets_cover_every_class_on_new_lesions():
    labels, values, lesions = synthetic.predictions(4000, 21)
    grouping = group(lesions, labels)
    here = grouping.take(np.arange(grouping.n) % 2 == 0)
    there = grouping.take(np.arange(grouping.n) % 2 == 1)
    minima = np.array(conformal_minima(labels[here], values[here], lesions[here]))
    held = conformal_set(values[there], minima)[np.arange(len(there)), labels[there]]
    for index in range(7):
        mine = labels[there] == index
        share = (votes(held[mine].astype(float), grouping.codes[there][mine]) > 0.5).mean()
        # 0.9 less three standard errors of both halves.
        assert share >= 0.9 - 3 * np.sqrt(2 * 0.09 / max(len(set(lesions[there][mine])), 1))


def test_operating_point_is_the_order_statistic():
    labels, values, lesions = synthetic.predictions(1500, 22)
    point = malignant_operating_point(labels, values, lesions)
    mine = np.isin(labels, [0, 2, 3])
    codes = group(lesions, labels).codes
    caught = np.sort(votes(malignant_probability(values).astype(float)[mine], codes[mine]))
    allowed = allowed_misses(len(caught), 0.90, 0.95)
    assert point.granted
    assert point.missed == (caught <= point.threshold).sum() == allowed
    assert caught[allowed - 1] <= point.threshold < caught[allowed]


def test_operating_point_that_cannot_be_guaranteed_refers_all_but_the_certain():
    labels = np.array([0] * 3 + [1] * 10)
    values = np.zeros((13, 7))
    values[:3, 0], values[3:, 0] = 0.9, 0.2
    values[:, 1] = 1 - values[:, 0]
    point = malignant_operating_point(labels, values, np.arange(13).astype(str))
    assert (point.granted, point.threshold, point.lesions) == (False, 0.0, 3)
    assert point.more_lesions is not None
    none = malignant_operating_point(np.ones(4, int), values[3:7], np.arange(4).astype(str))
    assert (none.granted, none.sensitivity, none.threshold) == (False, None, 0.0)


def test_the_whole_rule_is_its_parts():
    _, values, _ = synthetic.predictions(200, 23)
    rule = DecisionRule(thresholds={"MEL": 0.2, "AKIEC": 0.1}, malignant_threshold=0.3)
    found = apply_rule(rule, values)
    assert (found.decisions.decided == decide(values, rule.thresholds).decided).all()
    assert found.conformal_sets is None
    assert set(found.triage) <= {"refer", "routine"}
