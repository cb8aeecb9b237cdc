"""Figures and rules at their edges, each worked out by hand: ties, empty sides,
the smallest cases that differ.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.optimize import minimize

from skinlesion_cli.decisions.active_learning import select
from skinlesion_cli.decisions.calibration import ProbabilityCalibration, apply_linear
from skinlesion_cli.decisions.ensemble import combine, stacked_weights
from skinlesion_cli.decisions.evaluation.targets_met import lesion_share, targets_met
from skinlesion_cli.decisions.fit import fit_rule
from skinlesion_cli.decisions.former_triage import former_triage_levels
from skinlesion_cli.decisions.policies import cost
from skinlesion_cli.decisions.policies.published import PUBLISHED_GRID, published_thresholds
from skinlesion_cli.decisions.probability_fit import fit, sharpness
from skinlesion_cli.decisions.settings import FitSettings, Target
from skinlesion_cli.decisions.statistics import bounds, metrics
from skinlesion_cli.decisions.statistics.folds import grouped_folds
from skinlesion_cli.decisions.statistics.lesions import group
from skinlesion_cli.decisions.statistics.resampling import Ranking, Resamples
from skinlesion_cli.decisions.triage import DecisionRule, apply_rule
from skinlesion_cli.decisions.triage_fit import conformal_minima
from skinlesion_cli.errors import DataError, UsageError
from tests.support.class_lists import ISIC2018

FAR = 10**6


def rows(*columns: tuple[float, ...]) -> np.ndarray:
    """Probabilities with these columns (MEL, NV, BCC, AKIEC ...), one tuple an image;
    NV gets what is left.
    """
    found = np.zeros((len(columns), 7))
    for number, values in enumerate(columns):
        found[number, : len(values)] = values
    found[:, 1] += 1.0 - found.sum(axis=1)
    return found


# Bounds


def test_guaranteed_shares_in_steps_of_a_thousandth():
    # 36 of 40: the one-sided Clopper-Pearson bound is 0.7856; judged on 40 or 20 new lesions it is less.
    assert bounds.guaranteed_share(40, 4, 0.95, FAR) == 0.785
    assert bounds.guaranteed_share(40, 4, 0.95) == 0.785
    assert bounds.guaranteed_share(40, 4, 0.95, 40) == 0.75
    assert bounds.guaranteed_share(40, 4, 0.95, 20) == 0.7


def test_a_share_of_nothing_is_always_guaranteed():
    assert bounds.allowed_misses(10, 0.0, 0.95, 3) == 9
    # P(Binomial(10, 1/2) <= 1) = 11/1024, P(<= 2) = 56/1024.
    assert bounds.allowed_misses(10, 0.5, 0.95) == 1


def test_the_fewest_lesions_at_a_rate_of_misses():
    assert [bounds.lesions_needed(rate, 0.9, 0.95) for rate in (0.0, 0.01, 0.02, 0.05)] == [29, 46, 46, 129]
    # So near to the target that a hundred thousand lesions would not do.
    assert bounds.lesions_needed(0.0999, 0.9, 0.95) is None
    assert bounds.lesions_needed(0.1, 0.9, 0.95) is None


def test_an_interval_at_another_confidence():
    assert bounds.binomial_interval(9, 10, 0.9) == pytest.approx((0.6058, 0.9949), abs=1e-4)


# Figures


def test_a_ratio_over_nothing_is_undefined_and_shapes_are_matched():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(metrics.ratio(1.0, 0.0))
        assert metrics.ratio(1.0, np.array([0.0, 2.0, 4.0])).tolist() == pytest.approx(
            [np.nan, 0.5, 0.25], nan_ok=True
        )
        assert metrics.ratio(np.array([1, 2]), 4).tolist() == [0.25, 0.5]
        assert np.isnan(metrics.balanced_accuracy(np.empty(0, int), np.empty(0, int)))


@pytest.mark.parametrize("value", [0.0, 1.0, 1.0 + 5e-7])
def test_the_ends_of_the_probabilities_are_probabilities(value: float):
    given = np.zeros((1, 7))
    given[0, 2] = value
    assert metrics.checked(given)[0, 2] == min(value, 1.0)


@pytest.mark.parametrize("shape", [(7,), (1, 1), (1, 7, 1)])
def test_another_shape_is_none(shape: tuple[int, ...]):
    with pytest.raises(DataError, match="shape"):
        metrics.checked(np.zeros(shape))


def test_classes_without_images_are_omitted_from_the_balanced_accuracy():
    labels, decided = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1])
    # Sensitivities 1/2, 1 and 0 of three classes.
    assert metrics.balanced_accuracy(labels, decided) == 0.5
    assert metrics.sensitivity(labels, decided, 0) == 0.5


# Thresholds


def test_the_published_search_without_a_floor_looks_at_sensitivity_alone():
    found = published_thresholds(
        np.array([0, 0, 1, 1]), rows((0.3,), (0.3,), (0.9,), (0.9,)), [Target("MEL", 0.85)], ISIC2018
    )
    assert (found.thresholds["MEL"], found.rule["MEL"]) == (PUBLISHED_GRID[58], "target")


@pytest.mark.parametrize(
    ("given", "name"), [((0.0, 0.8), "sensitivity 0.0"), ((0.8, 1.0), "specificity 1.0")]
)
def test_the_target_that_is_none_is_named(given: tuple[float, float], name: str):
    with pytest.raises(UsageError, match=f"MEL: {name}"):
        Target("MEL", *given)


def test_targets_met_want_both_shares():
    labels = np.array([0, 0, 1, 1])
    lesions = np.array(list("abcd"))

    def met(decided: list[int], target: Target) -> bool | None:
        return targets_met(labels, np.array(decided), lesions, [target], ISIC2018)[0].met

    assert met([0, 0, 0, 0], Target("MEL", 0.5, 0.5)) is False
    assert met([1, 1, 1, 1], Target("MEL", 0.5, 0.5)) is False
    assert met([0, 1, 0, 1], Target("MEL", 0.5, 0.5)) is True
    assert met([0, 1, 0, 0], Target("MEL", 0.5)) is True
    found = targets_met(labels, labels, lesions, [Target("NV", 0.9, 0.8)], ISIC2018)[0]
    assert (found.class_name, found.target_sensitivity, found.target_specificity) == ("NV", 0.9, 0.8)


def test_a_target_without_a_floor_needs_no_other_class():
    alone = targets_met(
        np.array([0, 0]),
        np.array([0, 0]),
        np.array(["a", "b"]),
        [Target("MEL", 0.8), Target("MEL", 0.8, 0.5)],
        ISIC2018,
    )
    assert [verdict.met for verdict in alone] == [True, None]


def test_a_lesion_of_two_classes_is_refused_wherever_lesions_count():
    labels, values, lesions = np.array([0, 1]), rows((0.6,), (0.2,)), np.array(["a", "a"])
    with pytest.raises(DataError, match="different classes"):
        targets_met(labels, labels, lesions, [], ISIC2018)
    with pytest.raises(DataError, match="different classes"):
        cost.cost_thresholds(
            labels, values, lesions, cost.cost_matrix({"MEL": 9, "BCC": 9, "AKIEC": 9}, ISIC2018), ISIC2018
        )
    with pytest.raises(DataError, match="different classes"):
        list(grouped_folds(np.array([0, 1, 1]), np.array(["a", "a", "b"])))
    with pytest.raises(DataError, match="different classes"):
        stacked_weights(labels, values[None], lesions)


def test_half_right_is_not_right():
    found = lesion_share(np.array([True, False, True]), np.array([0, 0, 1]))
    assert (found.hits, found.n, found.value) == (1, 2, 0.5)


# Costs


def test_one_class_makes_room_for_another():
    # Alone, a melanoma threshold that catches the one at 0.2 (worth 20) calls 30 nevi. But ten AKIEC (worth
    # 50) are worth these nevi, and then melanoma takes them at no further price.
    values = np.r_[rows((0.2,)), rows(*[(0.3, 0.0, 0.0, 0.3)] * 30), rows(*[(0.0, 0.0, 0.0, 0.25)] * 10)]
    labels = np.array([0] + [1] * 30 + [3] * 10)
    matrix = cost.cost_matrix({"MEL": 20.0, "BCC": 5.0, "AKIEC": 5.0}, ISIC2018)
    found = cost.cost_thresholds(labels, values, np.arange(41).astype(str), matrix, ISIC2018)
    assert found == {"MEL": pytest.approx(0.1), "BCC": 1.0, "AKIEC": pytest.approx(0.125)}


def test_what_a_higher_class_takes_is_no_gain_of_a_lower_one():
    # A nevus called melanoma costs 5, called AKIEC 1: but the melanoma threshold has the first word.
    matrix = cost.cost_matrix({"MEL": 20.0, "BCC": 5.0, "AKIEC": 5.0}, ISIC2018)
    matrix[1, 0] = 5.0
    values = np.r_[rows(*[(0.25,)] * 10), rows(*[(0.3, 0.0, 0.0, 0.2)] * 2)]
    found = cost.cost_thresholds(
        np.array([0] * 10 + [1] * 2),
        values,
        np.arange(12).astype(str),
        matrix,
        ISIC2018,
        codes=["MEL", "AKIEC"],
    )
    assert found == {"MEL": pytest.approx(0.125), "AKIEC": 1.0}


def test_no_images_no_thresholds():
    matrix = cost.cost_matrix({"MEL": 20.0, "BCC": 5.0, "AKIEC": 5.0}, ISIC2018)
    found = cost.cost_thresholds(np.empty(0, int), np.empty((0, 7)), np.empty(0), matrix, ISIC2018)
    assert found == {"MEL": 1.0, "BCC": 1.0, "AKIEC": 1.0}


# Ensembles


def test_each_lesion_counts_once_in_stacking():
    # One image says the first member, three of one lesion say the second, just as loudly.
    first = rows((0.8,), (0.2,), (0.2,), (0.2,))
    second = rows((0.2,), (0.8,), (0.8,), (0.8,))
    labels, lesions = np.zeros(4, int), np.array(list("abbb"))
    assert stacked_weights(labels, np.stack([first, second]), lesions) == pytest.approx([0.5, 0.5], abs=1e-6)


def test_the_pull_towards_equal_weights():
    # -log(0.2 + 0.6 w) + penalty * 2 * 2 (w - 1/2)^2 has its least value at w = 3/4 where
    # 0.6 / 0.65 = penalty * 2, so at penalty 6/13.
    members = np.stack([rows((0.8,)), rows((0.2,))])
    found = stacked_weights(np.array([0]), members, np.array(["a"]), penalty=6 / 13)
    assert found == pytest.approx([0.75, 0.25], abs=1e-3)
    assert stacked_weights(np.array([0]), members, np.array(["a"]), penalty=0.0) == pytest.approx([1.0, 0.0])


def test_stacking_needs_images():
    with pytest.raises(DataError, match="no out-of-fold predictions"):
        stacked_weights(np.empty(0, int), np.empty((2, 0, 7)), np.empty(0))


def test_weights_may_sum_to_one_within_rounding():
    stack = np.stack([rows((0.5,)), rows((0.5,))])
    assert combine(stack, [0.5, 0.5 + 5e-7]).shape == (1, 7)
    for weights in ([0.5, 0.5 + 5e-6], [0.5, 0.5 - 5e-6]):
        with pytest.raises(DataError, match="sum to 1"):
            combine(stack, weights)


# Probabilities


def test_no_calibration_changes_nothing_and_all_give_float32():
    values = rows((0.25,), (0.5,))
    for found in (
        fit(np.array([0, 1]), values, "none").apply(values),
        apply_linear(values, np.ones(7), np.zeros(7)),
        ProbabilityCalibration("temperature", 1.0).apply(values),
    ):
        assert found.dtype == np.float32
        assert found == pytest.approx(values, abs=1e-6)


def test_vector_scaling_is_the_least_log_loss_with_its_pull():
    generator = np.random.default_rng(4)
    values = generator.dirichlet(np.ones(7), 60)
    labels = np.where(generator.random(60) < 0.6, values.argmax(axis=1), generator.integers(0, 7, 60))

    def objective(parameters: np.ndarray) -> float:
        logits = np.log(values) * parameters[:7] + parameters[7:]
        log_sum = np.log(np.exp(logits).sum(axis=1))
        pull = ((parameters[:7] - 1) ** 2).sum() + (parameters[7:] ** 2).sum()
        return float((log_sum - logits[np.arange(60), labels]).sum() + pull)

    found = fit(labels, values, "vector")
    best = minimize(objective, np.r_[np.ones(7), np.zeros(7)]).x
    assert (*found.weights, *found.biases) == pytest.approx(best, abs=2e-3)


def test_without_images_nothing_is_sharp():
    found = sharpness(np.empty(0, int), np.empty((0, 7)))
    assert np.isnan([found.ece, found.brier, found.log_loss]).all()


def test_folds_are_even_in_every_class_whatever_the_order_and_two_lesions_are_enough():
    labels = np.tile([0, 1, 1, 1, 1], 10)
    names = np.arange(50).astype(str)
    for _, held_out in grouped_folds(labels, names):
        assert np.bincount(labels[held_out]).tolist() == [2, 8]
    first = [held_out.tolist() for _, held_out in grouped_folds(labels, names, seed=1)]
    assert first != [held_out.tolist() for _, held_out in grouped_folds(labels, names, seed=2)]
    assert [h.tolist() for _, h in grouped_folds(np.array([0, 1]), np.array(["a", "b"]))] == [[0], [1]]


# Resampling


def test_one_of_each_side_is_enough_to_rank():
    lesions = group(np.array(["a", "b"]))
    auc, ap = Ranking.of(np.array([0.9, 0.1]), np.array([True, False]), lesions).figures(
        np.ones((1, 2), np.float32)
    )
    assert (auc[0], ap[0]) == (1.0, 1.0)
    one_side = Ranking.of(np.array([0.9, 0.1]), np.array([True, False]), lesions)
    auc, ap = one_side.figures(np.array([[2, 0], [0, 2]], np.float32))
    assert np.isnan([*auc, *ap]).all()


def test_draws_come_in_chunks_of_float32():
    lesions = group(np.arange(5))
    chunks = list(Resamples(lesions, np.array([0, 0, 0, 1, 1]), 250, 1).weights())
    assert [len(chunk) for chunk in chunks] == [100, 100, 50]
    assert {chunk.dtype for chunk in chunks} == {np.dtype(np.float32)}
    assert (chunks[0].sum(axis=1) == 5).all()
    assert (chunks[0] != chunks[1]).any()


# Triage


def test_the_rule_uses_all_that_it_holds():
    # MEL and AKIEC fire; only the malignant probability is high; the set holds both sides; nothing; doubtful.
    values = rows((0.3, 0, 0, 0.3), (0.15, 0, 0.2, 0.15), (0.1, 0.6, 0, 0, 0.3), (0.0, 0.99), (0.0, 0.99))
    rule = DecisionRule(
        ISIC2018,
        thresholds={"MEL": 0.2, "AKIEC": 0.2},
        priority=("AKIEC", "MEL"),
        malignant_threshold=0.45,
        conformal_minimum=(0.05, 0.4, 1, 1, 1, 1, 1),
    )
    found = apply_rule(rule, values, np.array([False, False, False, False, True]))
    assert found.decisions.decided.tolist() == [3, 1, 1, 1, 1]
    assert found.conformal_sets is not None
    assert found.conformal_sets[:, :2].tolist() == [[1, 1], [1, 1], [1, 1], [0, 1], [0, 1]]
    assert found.triage.tolist() == ["review", "review", "review", "routine", "review"]
    assert found.reasons[2:] == (
        "MEL or NV both plausible",
        "decided NV; malignant probability 0.00 <= 0.45",
        "flagged by the quality gate; NV plausible",
    )
    without_sets = apply_rule(DecisionRule(ISIC2018, malignant_threshold=0.45), values)
    assert without_sets.reasons[:2] == (
        "malignant probability 0.60 > 0.45",
        "malignant probability 0.50 > 0.45",
    )
    assert without_sets.triage.tolist() == ["refer", "refer", "routine", "routine", "routine"]


def test_without_an_operating_point_only_the_decision_refers():
    found = former_triage_levels(np.array([1, 0]), np.array([0.9, 0.1]), None, None, ISIC2018)
    assert found.tolist() == ["routine", "refer"]


# Whole rules


def test_what_no_rule_can_be():
    with pytest.raises(UsageError, match="no policy named 'best'"):
        fit_rule(
            np.array([0, 1]), rows((0.1,), (0.2,)), np.array(["a", "b"]), FitSettings(policy="best"), ISIC2018
        )
    with pytest.raises(DataError, match="2 images of 1"):
        fit_rule(np.array([1, 1]), rows((0.1,), (0.2,)), np.array(["a", "b"]), FitSettings(), ISIC2018)


@pytest.mark.parametrize("coverage", [0.0, 1.0])
def test_what_is_no_coverage(coverage: float):
    with pytest.raises(UsageError, match="coverage"):
        conformal_minima(np.array([0]), rows((0.5,)), np.array(["a"]), coverage)


def test_nobody_selects_by_an_unknown_strategy():
    with pytest.raises(UsageError, match="no strategy named 'luck'"):
        select("luck", 1, {}, np.empty((0, 2)))
