"""What holds for decisions over any class list: the order of the classes and their names change nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skinlesion_cli.decisions.evaluation.figures import Labelled, evaluate
from skinlesion_cli.decisions.fit import cross_fit, fit_rule
from skinlesion_cli.decisions.levels import LEVELS
from skinlesion_cli.decisions.policies.cost import cost_matrix
from skinlesion_cli.decisions.settings import Costs, FitSettings, Target, TriageSettings
from skinlesion_cli.decisions.triage import apply_rule, malignant_probability
from skinlesion_cli.decisions.triage_policy import triage_policy
from skinlesion_cli.errors import DataError, UsageError
from skinlesion_cli.taxonomy import MALIGNANT, ClassList, DiagnosticClass, mapping_between
from tests.support.class_lists import ISIC2018

LENIENT = TriageSettings(refer_ppv=0.5, routine_risk=0.3)


def class_list(malignant: list[bool], names: list[str] | None = None) -> ClassList:
    codes = names or [f"K{index}" for index in range(len(malignant))]
    return ClassList(
        "drawn",
        tuple(
            DiagnosticClass(code, f"title {code}", ill, "#000000", parents=("ill" if ill else "well",))
            for code, ill in zip(codes, malignant, strict=True)
        ),
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[ClassList, np.ndarray, np.ndarray, np.ndarray]:
    """A list of 2 to 12 classes, one of them benign, with labels, probabilities and lesions."""
    n = draw(st.integers(2, 12))
    malignant = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    malignant[draw(st.integers(0, n - 1))] = False
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    labels = np.r_[np.arange(n), rng.integers(0, n, 60)]
    logits = rng.normal(0.0, 1.0, (len(labels), n)) + 2.0 * np.eye(n)[labels]
    values = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return class_list(malignant), labels, values.astype(np.float32), np.arange(len(labels)).astype(str)


def renamed(classes: ClassList) -> ClassList:
    return class_list(classes.is_malignant.tolist(), [f"N{code}" for code in classes.codes])


def fit_settings(classes: ClassList, code: str | None = None) -> FitSettings:
    targets = (Target(code or classes.codes[0], 0.6),)
    return FitSettings(targets=targets, triage=LENIENT, malignant_sensitivity=0.6)


@settings(max_examples=25, deadline=None)
@given(cases())
def test_a_rule_is_fitted_and_applied_to_any_list(case) -> None:
    classes, labels, values, lesions = case
    fitted = fit_rule(labels, values, lesions, fit_settings(classes), classes)
    outcome = apply_rule(fitted.rule, values)
    assert outcome.probabilities.shape == values.shape
    np.testing.assert_allclose(outcome.probabilities.sum(axis=1), 1.0, atol=1e-5)
    assert set(outcome.decisions.decided.tolist()) <= set(range(classes.n_classes))
    assert len(fitted.rule.conformal_minimum) == classes.n_classes
    if classes.has_malignant:
        assert set(outcome.triage.tolist()) <= set(LEVELS)
        assert len(outcome.reasons) == len(labels)
        assert list(fitted.rule.alarms) == [classes.codes[0], MALIGNANT]
        expected = outcome.probabilities[:, classes.is_malignant].astype(float).sum(axis=1)
        np.testing.assert_allclose(outcome.malignant_probability, expected, atol=1e-6)
        routine = outcome.triage == "routine"
        assert not classes.is_malignant[outcome.decisions.decided[routine]].any()
    else:
        assert (outcome.triage, outcome.malignant_probability, outcome.reasons) == (None, None, ())
        assert (fitted.level_guarantees, fitted.rule.levels) == ((), None)
        assert list(fitted.rule.alarms) == [classes.codes[0]]
        assert triage_policy(fitted.rule, has_gate=True) == ()
    assert type(fitted.rule).from_json(fitted.rule.to_json(), classes) == fitted.rule


@settings(max_examples=15, deadline=None)
@given(cases())
def test_names_change_nothing(case) -> None:
    classes, labels, values, lesions = case
    other = renamed(classes)
    one = apply_rule(fit_rule(labels, values, lesions, fit_settings(classes), classes).rule, values)
    two = apply_rule(fit_rule(labels, values, lesions, fit_settings(other), other).rule, values)
    assert (one.probabilities == two.probabilities).all()
    assert (one.decisions.decided == two.decisions.decided).all()
    assert (one.triage is None) == (two.triage is None)
    if one.triage is not None:
        assert (one.triage == two.triage).all()


@settings(max_examples=15, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_the_classes_permutes_figures_and_decisions(case, random) -> None:
    classes, labels, values, lesions = case
    order = list(range(classes.n_classes))
    random.shuffle(order)
    place = np.argsort(order)
    other = ClassList("permuted", tuple(classes.entries[index] for index in order))
    decided = values.argmax(axis=1)
    one = evaluate(Labelled(labels, values, decided, lesions, classes), n_resamples=0).values
    moved = Labelled(place[labels], values[:, order], place[decided], lesions, other)
    two = evaluate(moved, n_resamples=0).values
    assert set(one) == set(two)
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-6, atol=1e-9, err_msg=name)
    code = classes.codes[0]
    first = fit_rule(labels, values, lesions, fit_settings(classes, code), classes).rule
    second = fit_rule(moved.labels, moved.probabilities, lesions, fit_settings(other, code), other).rule
    before, after = apply_rule(first, values), apply_rule(second, moved.probabilities)
    np.testing.assert_allclose(after.probabilities, before.probabilities[:, order], atol=2e-3)
    np.testing.assert_allclose(
        [second.alarms[name] for name in first.alarms], list(first.alarms.values()), atol=5e-3
    )


@settings(max_examples=10, deadline=None)
@given(cases())
def test_figures_of_malignancy_are_undefined_without_a_malignant_class(case) -> None:
    classes, labels, values, lesions = case
    figures = evaluate(
        Labelled(labels, values, values.argmax(axis=1), lesions, classes), n_resamples=0
    ).values
    of_malignancy = {name for name in figures if "malignant" in name or "net_benefit" in name}
    assert len(of_malignancy) == 25
    undefined = {name for name in of_malignancy if np.isnan(figures[name])}
    if classes.has_malignant:
        assert "malignant/auc" not in undefined
        assert "net_benefit/0.10" not in undefined
    else:
        assert undefined == of_malignancy
    assert figures["bacc"] == pytest.approx(
        np.mean([(values[labels == k].argmax(axis=1) == k).mean() for k in range(classes.n_classes)])
    )


@settings(max_examples=25, deadline=None)
@given(cases())
def test_mapping_onto_ill_and_well_keeps_the_malignant_probability(case) -> None:
    classes, labels, values, _ = case
    two = ClassList(
        "two",
        (
            DiagnosticClass("WELL", "healthy", False, "#000000", ("well",)),
            DiagnosticClass("ILL", "not healthy", True, "#ffffff", ("ill",)),
        ),
    )
    mapping = mapping_between(classes, two)
    mapped = mapping.probabilities(values)
    np.testing.assert_allclose(mapped[:, 1], malignant_probability(values, classes), atol=1e-6)
    np.testing.assert_allclose(mapped.sum(axis=1), values.sum(axis=1), atol=1e-6)
    assert (mapping.labels(labels) == classes.is_malignant[labels]).all()


def three() -> tuple[ClassList, np.ndarray, np.ndarray, np.ndarray]:
    labels = np.repeat([0, 1, 2], 40)
    rng = np.random.default_rng(3)
    logits = rng.normal(0.0, 1.0, (120, 3)) + 2.0 * np.eye(3)[labels]
    values = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return class_list([False, False, False]), labels, values, np.arange(120).astype(str)


def test_without_a_malignant_class_the_guaranteed_policy_wants_named_targets() -> None:
    classes, labels, values, lesions = three()
    with pytest.raises(UsageError, match="no class of drawn"):
        fit_rule(labels, values, lesions, FitSettings(), classes)
    with pytest.raises(UsageError, match="'malignant'"):
        fit_rule(labels, values, lesions, FitSettings(targets=(Target(MALIGNANT, 0.8),)), classes)
    unseen = cross_fit(labels, values, lesions, FitSettings(policy="none"), classes)
    assert unseen.triage is None
    assert unseen.conformal_sets.shape == (120, 3)


def test_the_published_policy_and_its_targets_belong_to_isic_2018() -> None:
    _, labels, values, lesions = three()
    ill = class_list([True, False, True], ["MEL", "NV", "ODD"])
    with pytest.raises(UsageError, match="belongs to the classes of isic2018"):
        fit_rule(labels, values, lesions, FitSettings(policy="published"), ill)
    fitted = fit_rule(labels, values, lesions, FitSettings(triage=LENIENT), ill)
    assert list(fitted.rule.alarms) == ["MEL", MALIGNANT]
    # A class of that code which is called benign gets no alarm that nobody asked for.
    turned = class_list([False, False, True], ["MEL", "NV", "ODD"])
    assert list(fit_rule(labels, values, lesions, FitSettings(), turned).rule.alarms) == [MALIGNANT]


def test_costs_are_about_the_malignant_classes_of_the_list() -> None:
    classes, labels, values, lesions = three()
    ill = class_list([True, False, True], ["A", "B", "C"])
    assert cost_matrix({"A": 20.0, "C": 5.0}, ill, 2.0).tolist() == [[0, 20, 0], [2, 0, 2], [0, 5, 0]]
    with pytest.raises(UsageError, match="--cost A=20 --cost C=5"):
        fit_rule(labels, values, lesions, FitSettings(policy="cost"), ill)
    with pytest.raises(UsageError, match="lacking: C"):
        fit_rule(labels, values, lesions, FitSettings(policy="cost", costs=Costs({"A": 3.0})), ill)
    with pytest.raises(UsageError, match="malignant"):
        fit_rule(labels, values, lesions, FitSettings(policy="cost", costs=Costs({"A": 3.0})), classes)
    costs = Costs({"A": 20.0, "C": 5.0})
    assert list(fit_rule(labels, values, lesions, FitSettings("cost", costs=costs), ill).rule.thresholds) == [
        "A",
        "C",
    ]


def test_probabilities_of_another_number_of_classes_are_refused() -> None:
    classes, labels, values, lesions = three()
    rule = fit_rule(labels, values, lesions, FitSettings(policy="none"), classes).rule
    with pytest.raises(DataError, match=r"drawn \(K0, K1, K2\), the probabilities are of 7 classes"):
        apply_rule(rule, np.full((1, 7), 1 / 7))
    with pytest.raises(DataError, match="3 classes"):
        apply_rule(replace(rule, classes=ISIC2018, conformal_minimum=()), np.full((1, 3), 1 / 3))
