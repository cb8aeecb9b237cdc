"""Triage by level and its net benefit, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.decisions.evaluation.figures import Labelled, evaluate
from skinlesion_cli.decisions.evaluation.triage_figures import triage_figures
from skinlesion_cli.decisions.triage import malignant_probability
from tests.support import synthetic
from tests.support.class_lists import ISIC2018

# Five images: two melanomas, a BCC, two nevi.
LABELS = np.array([0, 0, 2, 1, 1])
RISK = np.array([0.9, 0.3, 0.04, 0.3, 0.01])
LEVELS = np.array(["refer", "review", "routine", "review", "routine"])


def test_levels_by_hand():
    found = triage_figures(LABELS, RISK, LEVELS, np.arange(5), ISIC2018, n_resamples=10)["levels"]
    assert [found[level]["share"]["value"] for level in ("refer", "review", "routine")] == [0.2, 0.4, 0.4]
    assert [found[level]["risk"]["value"] for level in ("refer", "review", "routine")] == [1.0, 0.5, 0.5]
    assert [found[level]["share_of_malignant"]["value"] for level in found] == pytest.approx([1 / 3] * 3)
    assert [found[level]["share_of_benign"]["value"] for level in found] == [0.0, 0.5, 0.5]
    # One of one: exact, 0.025 to 1, not "1.000 to 1.000".
    assert (found["refer"]["risk"]["low"], found["refer"]["risk"]["high"]) == pytest.approx((0.025, 1.0))


def test_net_benefit_by_hand():
    found = triage_figures(LABELS, RISK, LEVELS, np.arange(5), ISIC2018, n_resamples=0)["net_benefit"]
    at = found["thresholds"].index(0.2)
    # Odds 1/4. Probability above 0.2: two malignant, one benign. Refer alone: one malignant. All: three and
    # two.
    assert found["probability"][at] == pytest.approx((2 - 0.25) / 5)
    assert found["triage"][at] == pytest.approx((2 - 0.25) / 5)
    assert found["refer"][at] == pytest.approx(1 / 5)
    assert found["refer_or_review"][at] == pytest.approx((2 - 0.25) / 5)
    assert found["all"][at] == pytest.approx((3 - 0.5) / 5)
    assert found["none"][at] == 0.0
    low = found["thresholds"].index(0.02)
    # At 0.02 the probability rule still sees the BCC at 0.04, routine does not.
    assert found["probability"][low] - found["triage"][low] == pytest.approx(1 / 5)


def test_the_worst_loss():
    found = triage_figures(LABELS, RISK, LEVELS, np.arange(5), ISIC2018, n_resamples=50)[
        "worst_loss_to_probability"
    ]
    assert (found["threshold"], found["value"]) == (0.02, pytest.approx(0.2))
    assert found["low"] <= 0.2 <= found["high"]


def test_predictive_values_vary_with_prevalence_and_sensitivities_do_not():
    """Standard error of a predictive value, from draws within classes (too narrow) and from all lesions."""
    labels, values, lesions = synthetic.predictions(2000, 71)
    figures = evaluate(
        Labelled(labels, values, values.argmax(axis=1), lesions, ISIC2018), n_resamples=400, ranking=False
    )
    called, ill = ISIC2018.is_malignant[values.argmax(axis=1)], ISIC2018.is_malignant[labels]
    ppv = ill[called].mean()
    # Binomial, of images; lesions of several images make it wider.
    least = np.sqrt(ppv * (1 - ppv) / called.sum())
    assert figures.replicates["malignant/ppv"].std() >= 0.9 * least
    # Net benefit of referring everyone is prevalence alone: binomial in lesions, zero within classes.
    odds = 0.1 / 0.9
    prevalence = ill.mean()
    spread = np.sqrt(prevalence * (1 - prevalence) / len(set(lesions))) * (1 + odds)
    assert figures.replicates["net_benefit_all/0.10"].std() == pytest.approx(spread, rel=0.25)
    assert "ece" not in figures.replicates
    estimate = figures.estimate("ece")
    assert np.isnan([estimate.low, estimate.high]).all()


def test_seven_of_seven_is_not_certain():
    labels = np.array([0] * 7 + [1] * 40)
    values = np.eye(7)[labels]
    figures = evaluate(Labelled(labels, values, labels, np.arange(47), ISIC2018), n_resamples=50)
    mel = figures.estimate("sensitivity/MEL")
    # 0.025^(1/7) = 0.5904.
    assert (mel.value, mel.low, mel.high) == (1.0, pytest.approx(0.5904, abs=1e-4), 1.0)
    assert np.isnan(figures.estimate("auc/MEL").low)
    assert np.isnan(figures.estimate("malignant/auc").low)
    assert figures.estimate("specificity/MEL").low == 1.0  # forty


def test_the_risk_of_a_level_is_what_was_drawn():
    labels, values, lesions = synthetic.predictions(1500, 72)
    risk = malignant_probability(values, ISIC2018)
    levels = np.where(risk > 0.5, "refer", np.where(risk > 0.05, "review", "routine"))
    found = triage_figures(labels, risk, levels, lesions, ISIC2018, n_resamples=300)["levels"]["refer"][
        "risk"
    ]
    ill = ISIC2018.is_malignant[labels]
    assert found["value"] == pytest.approx(ill[levels == "refer"].mean())
    assert found["low"] < found["value"] < found["high"]
