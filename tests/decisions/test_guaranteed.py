"""Thresholds that guarantee: hand-made order statistics, honest refusals, and what holds on new lesions."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.decisions.policies.guaranteed import NEVER, guaranteed_thresholds
from skinlesion_cli.decisions.settings import GuaranteeSettings, Target
from skinlesion_cli.decisions.statistics.lesions import group, votes
from skinlesion_cli.decisions.thresholds import decide
from skinlesion_cli.errors import DataError, UsageError
from tests.support import synthetic

FREE = GuaranteeSettings(max_bacc_loss=None)


def two_classes(mel: np.ndarray, nevi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Melanomas and nevi with these melanoma probabilities, every image its own lesion."""
    values = np.zeros((len(mel) + len(nevi), 7))
    values[:, 0] = np.r_[mel, nevi]
    values[:, 1] = 1.0 - values[:, 0]
    labels = np.array([0] * len(mel) + [1] * len(nevi))
    return labels, values, np.arange(len(labels)).astype(str)


def test_the_highest_threshold_allowed_is_an_order_statistic():
    # 60 melanomas at 0.01 ... 0.60. Alone, with all doubt on its sensitivity (no floor), 0.85 at 0.95 allows
    # 3 misses of 60 (see bounds): θ must stay below the 4th lowest, 0.04. No nevus is above 0.005, so every θ
    # in (0.005, 0.04) is as good but for the melanomas: the best is right below the lowest, 0.01.
    labels, values, lesions = two_classes(np.arange(1, 61) / 100, np.full(100, 0.005))
    found = guaranteed_thresholds(labels, values, lesions, [Target("MEL", 0.85)], settings=FREE)
    assert found.thresholds["MEL"] == pytest.approx(0.0075)
    assert found.guarantees[0].granted
    # What is guaranteed is the target, and nothing of a specificity that was not asked for.
    assert (found.guarantees[0].sensitivity, found.guarantees[0].specificity) == (0.85, None)


def test_the_ceiling_holds_where_balanced_accuracy_wants_more():
    # 60 melanomas at 0.01 ... 0.60, ten BCC at 0.0775. Above them θ would save all BCC for 7 melanomas: the
    # best balanced accuracy. But the guarantee allows 3 misses; below the 4th lowest melanoma no θ saves a
    # BCC, and the lowest saves the most melanomas.
    labels, values, lesions = two_classes(np.arange(1, 61) / 100, np.full(10, 0.0775))
    values[60:, 2], values[60:, 1], labels[60:] = values[60:, 1], 0.0, 2
    guarantee = guaranteed_thresholds(
        labels, values, lesions, [Target("MEL", 0.85)], settings=FREE
    ).guarantees[0]
    assert (guarantee.granted, guarantee.missed) == (True, 0)
    assert guarantee.threshold == pytest.approx(0.005)
    # 600 melanomas with the same scores allow 600 * 0.15 less a little: now the BCC are saved.
    many, values, _ = two_classes(np.repeat(np.arange(1, 61) / 100, 10), np.full(10, 0.0775))
    values[600:, 2], values[600:, 1], many[600:] = values[600:, 1], 0.0, 2
    found = guaranteed_thresholds(
        many, values, np.arange(610).astype(str), [Target("MEL", 0.85)], settings=FREE
    ).guarantees[0]
    assert (found.granted, found.missed) == (True, 70)
    assert found.threshold == pytest.approx((0.0775 + 0.08) / 2)


def test_two_images_of_a_lesion_are_one_vote():
    mel = np.r_[np.full(30, 0.9), np.full(30, 0.02)]
    labels, values, lesions = two_classes(mel, np.full(50, 0.05))
    # Each melanoma has one image at 0.9 and one at 0.02: decided right in one of two,
    # which is not more than half.
    lesions[:60] = [f"m{i % 30}" for i in range(60)]
    found = guaranteed_thresholds(labels, values, lesions, [Target("MEL", 0.85)], settings=FREE)
    assert found.guarantees[0].lesions == 30
    assert found.thresholds["MEL"] < 0.02


def test_no_positives_no_guarantee_and_no_threshold():
    labels, values, lesions = two_classes(np.empty(0), np.linspace(0.1, 0.4, 50))
    guarantee = guaranteed_thresholds(labels, values, lesions, [Target("MEL", 0.85, 0.85)]).guarantees[0]
    assert (guarantee.granted, guarantee.sensitivity, guarantee.lesions) == (False, None, 0)
    assert guarantee.threshold == NEVER
    # With a floor the sensitivity has 0.8 of the doubt (0.96 sure): 27 lesions without a miss would carry it.
    assert guarantee.more_lesions == 27
    assert "no lesion" in guarantee.reason


def test_too_few_lesions_are_refused_with_the_best_guarantee_and_the_number_missing():
    labels, values, lesions = two_classes(np.full(10, 0.9), np.full(200, 0.01))
    guarantee = guaranteed_thresholds(labels, values, lesions, [Target("MEL", 0.85, 0.85)]).guarantees[0]
    assert not guarantee.granted
    assert guarantee.more_lesions == 27 - 10
    # Ten of ten. With 0.8 of the doubt (0.04) the next ten may have r misses where P(the first r+1 of 20 are
    # all new) <= 0.04: (10*9*8*7)/(20*19*18*17) = 0.043 is too much, *6/16 = 0.016 is not, so r = 4 and 0.6.
    assert guarantee.sensitivity == pytest.approx(0.6)


def test_a_floor_that_cannot_be_held_is_refused():
    # Every nevus looks like every melanoma.
    labels, values, lesions = two_classes(np.full(100, 0.6), np.full(100, 0.6))
    guarantee = guaranteed_thresholds(labels, values, lesions, [Target("MEL", 0.85, 0.85)]).guarantees[0]
    assert not guarantee.granted
    assert "specificity" in guarantee.reason
    # The argmax calls all of them melanoma: all are caught, no specificity is left to guarantee, and more
    # melanomas would change nothing.
    assert (guarantee.specificity, guarantee.missed, guarantee.more_lesions) == (None, 0, None)
    assert guarantee.threshold == NEVER


def test_sensitivity_and_floor_out_of_reach_together():
    generator = np.random.default_rng(1)
    labels, values, lesions = two_classes(generator.random(100) * 0.4, generator.random(400) * 0.4)
    guarantee = guaranteed_thresholds(labels, values, lesions, [Target("MEL", 0.85, 0.85)]).guarantees[0]
    assert not guarantee.granted
    assert guarantee.more_lesions is None
    assert guarantee.specificity == 0.85
    said = values[:, 0] > guarantee.threshold
    assert (~said[labels == 1]).mean() >= 0.85
    assert guarantee.sensitivity is None or guarantee.sensitivity <= said[labels == 0].mean()


def test_a_threshold_that_costs_too_much_balanced_accuracy_is_refused():
    labels, values, lesions = synthetic.predictions(800, 3, strength=2.0)
    target = [Target("AKIEC", 0.75, 0.50)]
    free = guaranteed_thresholds(labels, values, lesions, target, settings=FREE)
    bound = guaranteed_thresholds(
        labels, values, lesions, target, settings=GuaranteeSettings(max_bacc_loss=0.01)
    )
    assert free.guarantees[0].granted
    assert not bound.guarantees[0].granted
    assert "balanced accuracy" in bound.guarantees[0].reason
    assert bound.thresholds["AKIEC"] > free.thresholds["AKIEC"]
    # The other classes' sensitivities fell by no more than 0.01 of balanced accuracy.
    argmax = values.argmax(axis=1)
    decided = decide(values, bound.thresholds).decided
    lost = sum(
        ((argmax == c)[labels == c].mean() - (decided == c)[labels == c].mean()) for c in range(7) if c != 3
    )
    assert 0.0 <= lost / 7 <= 0.01 + 1e-9


def test_certain_probabilities():
    labels = np.repeat([0, 1, 3], 60)
    values = np.eye(7)[labels]
    found = guaranteed_thresholds(labels, values, np.arange(180).astype(str))
    assert all(guarantee.granted for guarantee in found.guarantees)
    assert (decide(values, found.thresholds).decided == labels).all()


def test_ties_are_cut_as_a_whole():
    # 40 melanomas share one score: all or none are caught, and θ lies below it.
    labels, values, lesions = two_classes(np.full(40, 0.3), np.full(60, 0.1))
    found = guaranteed_thresholds(labels, values, lesions, [Target("MEL", 0.85, 0.85)])
    assert found.thresholds["MEL"] == pytest.approx(0.2)
    assert found.guarantees[0].missed == 0


def test_a_class_that_comes_later_does_not_move_an_earlier_threshold():
    labels, values, lesions = synthetic.predictions(1200, 5)
    first = guaranteed_thresholds(labels, values, lesions).thresholds["MEL"]
    moved = values.copy()
    moved[labels == 3] = np.roll(moved[labels == 3], 1, axis=0)
    moved[labels == 3, 4] = moved[labels == 3, 4] * 0.5
    moved[labels == 3, 3] += 1.0 - moved[labels == 3].sum(axis=1)
    # The floors count AKIEC lesions as negatives; without floors nothing of them is left.
    targets = [Target("MEL", 0.85), Target("AKIEC", 0.75)]
    first = guaranteed_thresholds(labels, values, lesions, targets).thresholds["MEL"]
    assert guaranteed_thresholds(labels, moved, lesions, targets).thresholds["MEL"] == first


def test_lesions_of_two_classes_and_double_targets_are_refused():
    labels, values, _ = two_classes(np.full(2, 0.9), np.full(2, 0.1))
    with pytest.raises(DataError, match="different classes"):
        guaranteed_thresholds(labels, values, np.array(["a", "b", "b", "c"]))
    with pytest.raises(UsageError, match="two targets"):
        guaranteed_thresholds(labels, values, np.arange(4), [Target("MEL", 0.8), Target("MEL", 0.9)])


def test_nan_is_refused():
    labels, values, lesions = two_classes(np.full(2, 0.9), np.full(2, 0.1))
    values[1, 0] = np.nan
    with pytest.raises(DataError, match="row 1"):
        guaranteed_thresholds(labels, values, lesions)


@pytest.mark.parametrize("settings", [FREE, GuaranteeSettings()])
def test_guarantees_hold_on_the_other_half(settings: GuaranteeSettings):
    """200 random halves by lesion: all guarantees of a half hold together on the other one in at least 95 %.

    200 draws may show 0.92 of what is 0.95 in truth (2 standard errors).
    """
    labels, values, lesion_ids = synthetic.predictions(1600, 11)
    lesions = group(lesion_ids, labels)
    of_lesion = labels[lesions.first]
    generator = np.random.default_rng(0)
    kept = 0
    for _ in range(200):
        seen = np.zeros(lesions.n, dtype=bool)
        for label in range(7):
            mine = generator.permutation(np.flatnonzero(of_lesion == label))
            seen[mine[: len(mine) // 2]] = True
        here, there = lesions.take(seen), lesions.take(~seen)
        found = guaranteed_thresholds(labels[here], values[here], lesion_ids[here], settings=settings)
        decided = decide(values[there], found.thresholds).decided
        good = True
        for guarantee, index in zip(found.guarantees, (0, 3), strict=True):
            mine = labels[there] == index
            right = votes((decided == index)[mine].astype(float), lesions.codes[there][mine])
            good &= guarantee.sensitivity is None or right.mean() >= guarantee.sensitivity - 1e-9
        kept += good
    assert kept / 200 >= 0.92
