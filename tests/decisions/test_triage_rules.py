"""Refer, review, routine; conformal sets; the triage of earlier calibrations."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.decisions.former_triage import former_triage_levels
from skinlesion_cli.decisions.statistics.lesions import group, votes
from skinlesion_cli.decisions.thresholds import decide
from skinlesion_cli.decisions.triage import (
    DecisionRule,
    RiskLevels,
    apply_rule,
    conformal_set,
    malignant_probability,
    triage_levels,
)
from skinlesion_cli.decisions.triage_fit import conformal_minima
from tests.support import synthetic
from tests.support.class_lists import ISIC2018


def test_malignant_probability_by_hand():
    found = malignant_probability(
        np.array([[0.1, 0.4, 0.2, 0.05, 0.25, 0, 0], [1 / 3, 0, 1 / 3, 1 / 3, 0, 0, 0]]), ISIC2018
    )
    assert found.tolist() == pytest.approx([0.35, 1.0])
    assert found.max() <= 1.0


def sets(*names: str) -> np.ndarray:
    order = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
    return np.array([[name in row.split("+") for name in order] for row in names])


def test_former_levels_one_by_one():
    # decided NV five times, then melanoma twice
    decided = np.array([1, 1, 1, 1, 1, 0, 0])
    malignant = np.array([0.1, 0.5, 0.1, 0.1, 0.1, 0.9, 0.9])
    found = former_triage_levels(
        decided, malignant, 0.3, sets("NV", "NV", "NV+MEL", "", "MEL", "MEL+BCC", "MEL+NV"), ISIC2018
    )
    assert found.tolist() == ["routine", "refer", "review", "review", "review", "refer", "review"]


def test_former_triage_reviews_a_flagged_image_whatever_else():
    found = former_triage_levels(
        np.array([1, 0]), np.array([0.0, 1.0]), 0.3, sets("NV", "MEL"), ISIC2018, np.array([True, True])
    )
    assert found.tolist() == ["review", "review"]


def test_at_the_operating_point_nothing_is_referred():
    assert former_triage_levels(np.array([1]), np.array([0.3], np.float64), 0.3, None, ISIC2018).tolist() == [
        "routine"
    ]
    assert former_triage_levels(np.array([1]), np.array([0.3000001]), 0.3, None, ISIC2018).tolist() == [
        "refer"
    ]


def test_a_malignant_decision_refers_below_the_operating_point():
    assert former_triage_levels(np.array([3]), np.array([0.1]), 0.3, None, ISIC2018).tolist() == ["refer"]


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
    minima = np.array(conformal_minima(labels[here], values[here], lesions[here], 0.90))
    held = conformal_set(values[there], minima)[np.arange(len(there)), labels[there]]
    for index in range(7):
        mine = labels[there] == index
        share = (votes(held[mine].astype(float), grouping.codes[there][mine]) > 0.5).mean()
        # 0.9 less three standard errors of both halves.
        assert share >= 0.9 - 3 * np.sqrt(2 * 0.09 / max(len(set(lesions[there][mine])), 1))


def test_the_whole_rule_is_its_parts():
    _, values, _ = synthetic.predictions(200, 23)
    rule = DecisionRule(ISIC2018, thresholds={"MEL": 0.2, "AKIEC": 0.1}, malignant_threshold=0.3)
    found = apply_rule(rule, values)
    assert (found.decisions.decided == decide(values, rule.thresholds, ISIC2018).decided).all()
    assert found.conformal_sets is None
    assert set(found.triage) <= {"refer", "routine"}


LEVELS = RiskLevels(refer_above=0.5, routine_at_most=0.05)


def mixture(malignant: float, of: int = 0, benign: int = 1) -> list[float]:
    row = np.zeros(7)
    row[of], row[benign] = malignant, 1.0 - malignant
    return row.tolist()


def test_the_highest_malignant_probabilities_are_referred():
    # As the triage of earlier calibrations put them: a set with benign and malignant classes went to review,
    # however probable malignancy was. Decided melanoma at 0.97, 0.90, 0.85, 0.6; a nevus at 0.2 and at 0.01.
    values = np.array([mixture(p) for p in (0.97, 0.90, 0.85, 0.6, 0.2, 0.01)])
    minima = (0.03, 0.09, 0.5, 0.5, 0.5, 0.5, 0.5)
    former = apply_rule(DecisionRule(ISIC2018, malignant_threshold=0.3, conformal_minimum=minima), values)
    assert former.triage.tolist() == ["refer", "review", "review", "review", "review", "routine"]
    found = apply_rule(DecisionRule(ISIC2018, levels=LEVELS, conformal_minimum=minima), values)
    assert found.triage.tolist() == ["refer", "refer", "refer", "refer", "review", "routine"]
    ranks = {"refer": 2, "review": 1, "routine": 0}
    order = np.argsort(-found.malignant_probability)
    assert np.diff([ranks[level] for level in found.triage[order]]).max() <= 0


def test_at_a_limit_the_lower_level_holds():
    found = triage_levels(np.array([0.5, 0.5000001, 0.05, 0.0500001]), LEVELS, [])
    assert found.tolist() == ["review", "refer", "routine", "review"]


def test_what_raises_routine_never_lowers_refer():
    risk, raised = np.array([0.9, 0.3, 0.01]), np.array([True, True, True])
    assert triage_levels(risk, LEVELS, [raised]).tolist() == ["refer", "review", "review"]
    assert triage_levels(risk, RiskLevels(0.5, -1.0), []).tolist() == ["refer", "review", "review"]


def test_alarms_offsets_sets_and_flags_raise_and_say_why():
    # An alarm at 0.04; decided MEL by its offset; a malignant class in the set; no class in the set; flagged;
    # nothing.
    values = np.array(
        [mixture(0.04), mixture(0.03), mixture(0.02, 2), mixture(0.01, 3, 4), mixture(0.0), mixture(0.0)]
    )
    rule = DecisionRule(
        ISIC2018,
        class_offsets=(3.5, 0, 0, 0, 0, 0, 0),
        alarms={"MEL": 0.035, "malignant": 0.9},
        levels=LEVELS,
        conformal_minimum=(1.0, 0.5, 0.019, 1.0, 1.0, 1.0, 1.0),
    )
    found = apply_rule(
        rule, values, np.array([False, False, False, False, True, False]), [()] * 4 + [("too_blurred",), ()]
    )
    # 0.03 e^3.5 = 0.99 > 0.97; 0.04 e^3.5 = 1.3.
    assert found.decisions.decided.tolist() == [0, 0, 1, 4, 1, 1]
    assert found.decisions.argmax.tolist() == [1, 1, 1, 4, 1, 1]
    assert found.triage.tolist() == ["review", "review", "review", "review", "review", "routine"]
    assert [found.fired_alarms(row) for row in range(2)] == [("MEL",), ()]
    assert found.reasons == (
        "melanoma alarm 0.040 > 0.035; decided MEL",
        "decided MEL",
        "NV or BCC both plausible",
        "no class is plausible",
        "blurred",
        "malignant probability 0.000 <= 0.050",
    )
