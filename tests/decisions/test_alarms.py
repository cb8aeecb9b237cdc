"""Alarms of the policy `guaranteed`: hand-made order statistics, honest refusals."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.decisions.policies.base import Guarantee
from skinlesion_cli.decisions.policies.guaranteed import NEVER, find, guaranteed_alarm
from skinlesion_cli.decisions.policies.published import check
from skinlesion_cli.decisions.settings import FitSettings, GuaranteeSettings, Target
from skinlesion_cli.decisions.statistics import bounds
from skinlesion_cli.errors import DataError, UsageError
from tests.support.class_lists import ISIC2018


def alarm(
    positive: list[float], negative: list[float], target: Target, confidence: float = 0.9, **more: int
) -> Guarantee:
    """Every image its own lesion; without a floor each statement has half of the doubt."""
    scores = np.array(positive + negative)
    is_positive = np.arange(len(scores)) < len(positive)
    return guaranteed_alarm(target, scores, is_positive, np.arange(len(scores)), confidence, **more)


MEL = Target("MEL", 0.85)


def test_the_threshold_lies_midway_below_the_lesion_that_may_not_be_missed():
    # Of 30 lesions one may be missed: P(Binomial(30, 0.15) <= 1) = 0.0480 <= 0.05, <= 2 would be 0.1514.
    # The second lowest has 0.42; the next score below it is the nevus at 0.415.
    found = alarm([0.40 + 0.01 * i for i in range(1, 31)], [0.2, 0.415, 0.9], MEL)
    assert (found.granted, found.sensitivity, found.missed, found.lesions) == (True, 0.85, 1, 30)
    assert found.threshold == pytest.approx(0.4175)
    assert found.specificity is None


def test_the_next_lesions_have_a_figure_of_their_own():
    found = alarm([0.5] * 30, [0.2], MEL)
    # 0 of 30 missed: the population has 0.05^(1/30) = 0.9050 at best; the next 30, see the closed form of the
    # lowest of 30: no more than r new ones below it, (30·29·...)/(60·59·...) over r + 1 terms: r = 3 0.0562,
    # r = 4 0.0261.
    assert found.next_lesions == 30
    assert found.next_sensitivity == pytest.approx(1 - 4 / 30, abs=1e-3)
    assert alarm([0.5] * 30, [0.2], MEL, horizon=1000).next_lesions == 1000


def test_photographs_count_by_lesion():
    # 40 lesions of two photographs, one of each above the threshold: half is what is caught per photograph.
    scores = np.tile([0.3, 0.9], 40)
    codes, positive = np.repeat(np.arange(40), 2), np.ones(80, dtype=bool)
    target = Target("MEL", 0.2)
    found = guaranteed_alarm(target, np.r_[scores, 0.5], np.r_[positive, False], np.r_[codes, 40], 0.9)
    # The lower median is 0.3: all lesions are caught below it, with all of their photographs.
    assert found.threshold < 0.3
    assert found.photograph_sensitivity == pytest.approx(0.05 ** (1 / 40), abs=2e-4)


def test_too_few_lesions_are_refused_with_what_they_carry_and_the_number_missing():
    # 0.85^18 = 0.0536: one lesion fewer than it takes.
    found = alarm([0.5] * 18, [0.2] * 50, MEL)
    assert (found.granted, found.more_lesions, found.missed) == (False, 1, 0)
    assert found.sensitivity == pytest.approx(0.05 ** (1 / 18), abs=1e-3)
    assert found.threshold == pytest.approx(0.35)
    assert found.reason == "too few lesions of this kind"


def test_no_positives_no_guarantee_and_no_alarm():
    found = alarm([], [0.1] * 30, MEL)
    assert (found.granted, found.sensitivity, found.next_sensitivity, found.lesions) == (False, None, None, 0)
    assert found.threshold == NEVER
    assert found.more_lesions == 19


def test_a_floor_that_cannot_be_had_together_with_the_sensitivity():
    # All melanomas lie below all nevi: no threshold keeps both. The specificity stays, the sensitivity gives
    # way.
    found = alarm([0.1] * 60, [0.6] * 200, Target("MEL", 0.85, 0.85))
    assert (found.granted, found.specificity, found.sensitivity, found.missed) == (False, 0.85, None, 60)
    assert found.threshold == pytest.approx(0.6)
    assert found.more_lesions is None
    assert "together with the specificity" in found.reason


def test_a_floor_that_holds_costs_the_sensitivity_a_tenth_of_its_doubt():
    apart = [0.8 + 0.001 * i for i in range(60)]
    found = alarm(apart, [0.1] * 200, Target("MEL", 0.85, 0.85))
    assert found.granted
    # 0.4 of 0.1 instead of 0.5 of it.
    assert found.missed == bounds.allowed_misses(60, 0.85, 0.96)


def test_too_few_lesions_of_other_classes():
    found = alarm([0.8] * 60, [0.1] * 3, Target("MEL", 0.85, 0.85))
    assert (found.granted, found.more_lesions) == (False, None)
    assert "other classes" in found.reason
    # 0 of 3 false alarms at confidence 0.98: 0.02^(1/3) = 0.2714.
    assert found.specificity == pytest.approx(0.271)


def test_the_policy_has_an_alarm_on_malignancy_and_shares_the_doubt():
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1, 2], [60, 300, 60])
    values = rng.dirichlet(np.ones(7), len(labels)) * 0.3
    values[np.arange(len(labels)), labels] += 0.7
    settings = FitSettings(guarantee=GuaranteeSettings(0.9))
    found = find(labels, values, np.arange(len(labels)), settings, ISIC2018)
    assert list(found.alarms) == ["MEL", "malignant"]
    # Two alarms and two levels share 0.1.
    assert [each.confidence for each in found.guarantees] == pytest.approx([0.975, 0.975])
    assert [each.lesions for each in found.guarantees] == [60, 120]
    own = FitSettings(targets=(Target("malignant", 0.95), Target("BCC", 0.8)))
    assert list(find(labels, values, np.arange(len(labels)), own, ISIC2018).alarms) == ["malignant", "BCC"]


def test_what_is_refused():
    labels, values = np.array([0, 1, 1]), np.eye(7)[[0, 1, 1]]
    with pytest.raises(DataError, match="different classes"):
        find(labels, values, np.array(["a", "a", "b"]), FitSettings(), ISIC2018)
    twice = FitSettings(targets=(Target("MEL", 0.8), Target("MEL", 0.9)))
    with pytest.raises(UsageError, match="two targets"):
        find(labels, values, np.arange(3), twice, ISIC2018)
    values[1, 0] = np.nan
    with pytest.raises(DataError, match="row 1"):
        find(labels, values, np.arange(3), FitSettings(), ISIC2018)
    with pytest.raises(UsageError, match="malignant"):
        check(FitSettings(policy="published", targets=(Target("malignant", 0.9),)), ISIC2018)
    for confidence in (0.3, 1.0):
        with pytest.raises(UsageError, match="confidence"):
            GuaranteeSettings(confidence)
