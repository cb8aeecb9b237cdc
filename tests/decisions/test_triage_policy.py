"""Triage in sentences: the same rules, in the same order, as those that decide."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.artifacts.bundle import Bundle, bundled_model
from skinlesion_cli.decisions.reasons import compared
from skinlesion_cli.decisions.triage import DecisionRule, RiskLevels, apply_rule
from skinlesion_cli.decisions.triage_policy import triage_policy
from tests.support.class_lists import ISIC2018

RULE = DecisionRule(
    ISIC2018,
    alarms={"MEL": 0.18, "malignant": 0.25},
    levels=RiskLevels(refer_above=0.45, routine_at_most=0.02),
    conformal_minimum=(0.05, 0.80, 0.07, 0.02, 0.06, 0.01, 0.2),
)


def test_levels_come_in_the_order_in_which_they_apply() -> None:
    refer, review, routine = triage_policy(RULE, has_gate=True)
    assert (refer.level, refer.conditions) == ("refer", ("the malignant probability is above 0.450",))
    assert review.level == "review"
    assert review.conditions == (
        "the malignant probability is above 0.020",
        "the melanoma alarm fires (MEL probability above 0.180)",
        "the malignancy alarm fires (malignant probability above 0.250)",
        "the decided class is MEL, BCC or AKIEC",
        "a malignant class is plausible (MEL from 0.050, BCC from 0.070, AKIEC from 0.020)",
        "no class is plausible",
        "the quality gate flags the image",
    )
    assert (routine.level, routine.sentence) == ("routine", "all other images; not an all-clear")


def test_only_what_the_calibration_holds_is_said() -> None:
    bare = DecisionRule(ISIC2018, levels=RiskLevels(0.45, 0.02))
    assert triage_policy(bare, has_gate=False)[1].conditions == (
        "the malignant probability is above 0.020",
        "the decided class is MEL, BCC or AKIEC",
    )
    nothing_routine = triage_policy(DecisionRule(ISIC2018, levels=RiskLevels(0.45, -1.0)), has_gate=True)
    assert [(each.level, len(each.conditions)) for each in nothing_routine] == [("refer", 1), ("review", 0)]


def test_earlier_calibrations_review_before_they_refer() -> None:
    rule = DecisionRule(ISIC2018, malignant_threshold=0.3, conformal_minimum=(0.1,) * 7)
    levels = triage_policy(rule, has_gate=True)
    assert [each.level for each in levels] == ["review", "refer", "routine"]
    assert levels[1].conditions == (
        "the decided class is MEL, BCC or AKIEC",
        "the malignant probability is above 0.300",
    )
    assert levels[0].conditions[0] == "the quality gate flags the image"
    assert [each.level for each in triage_policy(DecisionRule(ISIC2018), has_gate=False)] == [
        "refer",
        "routine",
    ]


def test_each_condition_of_review_is_one_that_the_rule_applies() -> None:
    # One image per condition, in the order of the sentences: each alone raises it to review.
    rows = np.zeros((7, 7))
    rows[:, 1] = 1.0
    for row, (malignant_class, share) in enumerate([(0, 0.03), (0, 0.19), (2, 0.26), (0, 0.0), (2, 0.0)]):
        rows[row, malignant_class], rows[row, 1] = share, 1.0 - share
    rows[3] = [0.34, 0.33, 0, 0, 0.33, 0, 0]
    rows[4] = [0.06, 0.94, 0, 0, 0, 0, 0]
    rows[5] = [0.01, 0.75, 0, 0, 0.05, 0, 0.19]
    flagged = np.array([False] * 6 + [True])
    found = apply_rule(RULE, rows / rows.sum(axis=1, keepdims=True), flagged, [()] * 6 + [("hair", "marker")])
    assert found.triage.tolist() == ["review"] * 7
    assert "melanoma alarm 0.19 > 0.18" in found.reasons[1]
    assert "malignancy alarm 0.26 > 0.25" in found.reasons[2]
    assert "decided MEL" in found.reasons[3]
    assert "MEL or NV both plausible" in found.reasons[4]
    assert found.reasons[5] == "no class is plausible"
    assert found.reasons[6] == "covered by hair, covered by marker ink"


def test_the_bundled_model_is_described_by_its_own_numbers() -> None:
    bundle = Bundle.load(bundled_model())
    levels = bundle.calibration.rule.levels
    assert levels is not None
    said = triage_policy(bundle.calibration.rule, has_gate=bundle.gate is not None)
    assert said[0].sentence.endswith(f"above {levels.refer_above:.3f}")


@pytest.mark.parametrize(
    ("score", "limit", "wanted"),
    [(0.31, 0.18, "0.31 > 0.18"), (0.0649, 0.0648, "0.0649 > 0.0648"), (0.1811, 0.18, "0.181 > 0.180")],
)
def test_two_numbers_never_look_the_same_where_they_differ(score: float, limit: float, wanted: str) -> None:
    assert compared(score, ">", limit) == wanted
