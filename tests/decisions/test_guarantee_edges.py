"""Guarantees at their edges: what each number of a guarantee is, to the last lesion."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.decisions.policies.guaranteed import NEVER, Guarantee, guaranteed_thresholds
from skinlesion_cli.decisions.settings import GuaranteeSettings, Target
from skinlesion_cli.errors import UsageError

FREE = GuaranteeSettings(max_bacc_loss=None)
FAR = GuaranteeSettings(max_bacc_loss=None, horizon=10**6)


def guarantee(
    mel: list[float], nevi: list[float], target: Target, settings: GuaranteeSettings = FREE
) -> Guarantee:
    """The guarantee on melanomas and nevi with these melanoma probabilities, every image its own lesion."""
    values = np.zeros((len(mel) + len(nevi), 7))
    values[:, 0] = [*mel, *nevi]
    values[:, 1] = 1.0 - values[:, 0]
    labels = np.array([0] * len(mel) + [1] * len(nevi))
    names = np.arange(len(labels)).astype(str)
    return guaranteed_thresholds(labels, values, names, [target], settings=settings).guarantees[0]


@pytest.mark.parametrize("confidence", [0.49, 1.0, 1.5, float("nan")])
def test_what_is_no_confidence(confidence: float):
    with pytest.raises(UsageError, match="confidence"):
        GuaranteeSettings(confidence)


def test_half_is_the_least_confidence():
    assert GuaranteeSettings(0.5).confidence == 0.5


def test_guarantees_share_the_doubt_and_a_floor_takes_a_fifth_of_its_class():
    labels, values = np.repeat([0, 3, 1], 60), np.eye(7)[np.repeat([0, 3, 1], 60)]
    names = np.arange(180).astype(str)
    targets = [Target("MEL", 0.85, 0.85), Target("AKIEC", 0.75)]
    found = guaranteed_thresholds(labels, values, names, targets).guarantees
    # 0.05 for two: 0.025 each; of the first 0.8 are left for its sensitivity.
    assert [one.confidence for one in found] == pytest.approx([0.98, 0.975])
    alone = guaranteed_thresholds(labels, values, names, targets[1:]).guarantees[0]
    assert (alone.confidence, alone.granted, alone.more_lesions) == (pytest.approx(0.95), True, 0)
    assert (alone.reason, alone.lesions, alone.missed) == ("", 60, 0)


def test_the_fewest_lesions_that_carry_a_guarantee_and_one_fewer():
    # 27 of 27 carry 0.85 (see the bounds); 26 lack one.
    enough = guarantee([0.3] * 27, [0.1] * 100, Target("MEL", 0.85))
    assert (enough.granted, enough.threshold) == (True, pytest.approx(0.2))
    lacking = guarantee([0.3] * 26, [0.1] * 100, Target("MEL", 0.85))
    assert (lacking.granted, lacking.more_lesions) == (False, 1)
    assert (
        lacking.reason == "the sensitivity cannot be guaranteed within the balanced accuracy that it may cost"
    )


def test_the_horizon_is_what_a_guarantee_is_judged_on():
    # Of the population alone, 26 of 26 carry 0.85: 0.85^26 = 0.015, and even 19 do (0.046).
    assert guarantee([0.3] * 19, [0.1] * 100, Target("MEL", 0.85), FAR).granted
    assert not guarantee([0.3] * 18, [0.1] * 100, Target("MEL", 0.85), FAR).granted
    # Ten of ten: 0.05^(1/10) = 0.741 of the population.
    assert guarantee([0.3] * 10, [0.1] * 100, Target("MEL", 0.85), FAR).sensitivity == 0.741


def test_where_the_floor_binds_the_threshold_is_its_order_statistic():
    # No melanoma is above any nevus, so the floor alone decides. With a fifth of the doubt (0.01) 5 of 100
    # nevi may be called, 6 where only the population counts (binomial): θ lies right above the 6th (7th)
    # highest.
    nevi = (np.arange(1, 101) / 1000).tolist()
    found = guarantee([0.0005] * 60, nevi, Target("MEL", 0.85, 0.85))
    assert (found.granted, found.specificity, found.missed) == (False, 0.85, 60)
    assert found.threshold == pytest.approx(0.0955)
    assert found.reason == "the sensitivity cannot be guaranteed together with the specificity floor"
    assert found.sensitivity is None
    far = guarantee([0.0005] * 60, nevi, Target("MEL", 0.85, 0.85), FAR)
    assert far.threshold == pytest.approx(0.0945)


def test_a_nevus_is_a_false_call_where_half_of_its_images_are():
    # Every nevus has a second image at 0: the higher one of the two counts, as in the case above.
    values = np.zeros((260, 7))
    values[:60, 0] = 0.0005
    values[60:160, 0] = np.arange(1, 101) / 1000
    values[:, 1] = 1.0 - values[:, 0]
    labels = np.array([0] * 60 + [1] * 200)
    names = np.array([f"m{i}" for i in range(60)] + [f"n{i}" for i in range(100)] * 2)
    found = guaranteed_thresholds(labels, values, names, [Target("MEL", 0.85, 0.85)], settings=FREE)
    assert found.thresholds["MEL"] == pytest.approx(0.0955)


def test_a_floor_out_of_reach_says_which_floor_is_in_reach():
    # The argmax calls 30 of 100 nevi melanoma. With a fifth of the doubt (0.99 sure) the next 100 keep 0.54;
    # of the population the Clopper-Pearson bound of 70 of 100 is 0.5819, and steps are 0.001.
    mel, nevi = [0.9] * 60, [0.6] * 30 + [0.1] * 70
    found = guarantee(mel, nevi, Target("MEL", 0.85, 0.85))
    assert (found.granted, found.threshold, found.missed) == (False, NEVER, 0)
    assert (found.specificity, found.target_specificity, found.more_lesions) == (0.54, 0.85, None)
    assert found.reason == "the specificity floor cannot be guaranteed even without a threshold"
    assert guarantee(mel, nevi, Target("MEL", 0.85, 0.85), FAR).specificity == 0.581


def test_more_lesions_allow_for_the_rate_of_misses():
    # Two of 30 melanomas look like no nevus at all, but costs forbid to go below the nevi: no guarantee of
    # 30, and at that rate 100 lesions carry 0.85.
    found = guarantee([0.0] * 2 + [0.3] * 28, [0.1] * 100, Target("MEL", 0.85))
    assert (found.granted, found.lesions, found.missed) == (False, 30, 2)
    assert found.more_lesions == 70


def test_a_later_class_has_no_say_in_an_earlier_threshold():
    # 38 melanomas at 0.6 and 2 at 0.25, nevi at 0.1: 0.175 catches all of them at no price. It takes 40 AKIEC
    # at 0.3, but these come later: if they counted, 0.45 would be better.
    values = np.zeros((180, 7))
    values[:, 0] = [0.6] * 38 + [0.25] * 2 + [0.3] * 40 + [0.1] * 100
    labels = np.array([0] * 40 + [3] * 40 + [1] * 100)
    values[40:80, 3] = 0.7
    values[:, 1] = 1.0 - values.sum(axis=1)
    names = np.arange(180).astype(str)
    targets = [Target("MEL", 0.5), Target("AKIEC", 0.5)]
    found = guaranteed_thresholds(labels, values, names, targets, settings=FREE)
    assert found.thresholds["MEL"] == pytest.approx(0.175)
    # All AKIEC went to melanoma, and no threshold brings one back.
    assert (found.guarantees[1].missed, found.guarantees[1].granted) == (40, False)
    turned = guaranteed_thresholds(labels, values, names, targets, ["AKIEC", "MEL"], FREE)
    assert list(turned.thresholds) == ["AKIEC", "MEL"]
    assert turned.guarantees[0].missed == 0


def test_the_lesions_that_only_the_argmax_catches_count_where_nothing_comes_later():
    # 30 melanomas are above every nevus; 30 more win the argmax at 0.3, level with 40 nevi that do not.
    values = np.zeros((100, 7))
    values[:, 0] = [0.9] * 30 + [0.3] * 70
    values[30:60, 1:5] = 0.175
    values[60:, 1] = 0.7
    values[:30, 1] = 0.1
    labels = np.array([0] * 60 + [1] * 40)
    names = np.arange(100).astype(str)
    found = guaranteed_thresholds(labels, values, names, [Target("MEL", 0.85, 0.85)], settings=FREE)
    assert (found.guarantees[0].granted, found.guarantees[0].missed) == (True, 0)
    # The largest of equally good thresholds: none is needed at all.
    assert found.thresholds["MEL"] == NEVER
    both = [Target("MEL", 0.85, 0.85), Target("AKIEC", 0.5)]
    # A later class might take them: now they are caught by a threshold or not at all.
    assert not guaranteed_thresholds(labels, values, names, both, settings=FREE).guarantees[0].granted


def test_what_one_class_leaves_of_the_costs_the_next_may_use():
    # Each AKIEC threshold costs one of 100 nevi, 0.01 / 3 of balanced accuracy, and each melanoma nothing.
    values = np.zeros((220, 7))
    values[:60, 0], values[60:120, 3] = 0.9, 0.3
    values[120:123, 3] = 0.35
    values[:, 1] = 1.0 - values.sum(axis=1)
    labels = np.array([0] * 60 + [3] * 60 + [1] * 100)
    names = np.arange(220).astype(str)
    targets = [Target("MEL", 0.85), Target("AKIEC", 0.75)]
    # Three nevi of 100 cost 0.03 / 3 = 0.01.
    enough = GuaranteeSettings(max_bacc_loss=0.0101)
    found = guaranteed_thresholds(labels, values, names, targets, settings=enough).guarantees
    assert [one.granted for one in found] == [True, True]
    assert found[1].threshold == pytest.approx(0.15)
    less = GuaranteeSettings(max_bacc_loss=0.0099)
    found = guaranteed_thresholds(labels, values, names, targets, settings=less).guarantees
    assert [one.granted for one in found] == [True, False]
    # The nevi at 0.35 stay what they are: θ lies above them, and no candidate is nearer than 1.
    assert found[1].threshold == NEVER
