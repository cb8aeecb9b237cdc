"""Figures at another prevalence: by hand, and against Bayes' rule."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.decisions.evaluation.prevalence import (
    class_weights,
    figures_at_prevalence,
    parse_prevalence,
)
from skinlesion_cli.errors import DataError, UsageError
from tests.support.class_lists import ISIC2018

MEL, NV, BCC = 0, 1, 2
# 10 melanomas, of which 8 are decided melanoma and referred; 30 nevi, of which 6 are.
LABELS = np.array([MEL] * 10 + [NV] * 30)
DECIDED = np.array([MEL] * 8 + [NV] * 2 + [MEL] * 6 + [NV] * 24)
LEVELS = np.where(DECIDED == MEL, "refer", "routine")
MALIGNANT = np.where(DECIDED == MEL, 0.6, 0.01)
LESIONS = np.arange(40).astype(str)


def at(prevalence, **settings):
    body = figures_at_prevalence(
        LABELS, DECIDED, LEVELS, MALIGNANT, LESIONS, prevalence, ISIC2018, **settings
    )
    return {name: figure["value"] for name, figure in body["figures"].items()}


def test_predictive_values_are_those_of_bayes_rule():
    values = at({"MEL": 0.02}, n_resamples=0)
    sensitivity, specificity = 8 / 10, 24 / 30
    assert values["malignant_share"] == pytest.approx(0.02)
    ppv = 0.02 * sensitivity / (0.02 * sensitivity + 0.98 * (1 - specificity))
    npv = 0.98 * specificity / (0.98 * specificity + 0.02 * (1 - sensitivity))
    assert values["ppv/MEL"] == pytest.approx(ppv)
    assert values["npv/MEL"] == pytest.approx(npv)
    assert values["level/refer/share"] == pytest.approx(0.02 * 0.8 + 0.98 * 0.2)
    assert values["level/refer/risk"] == pytest.approx(ppv)
    assert values["level/routine/risk"] == pytest.approx(1 - npv)
    assert np.isnan(values["level/review/risk"])
    # Net benefit at 0.10: 0.016 true and 0.196 false referrals per image.
    assert values["net_benefit/0.10"] == pytest.approx(0.016 - 0.196 / 9)
    assert values["net_benefit_refer/0.10"] == pytest.approx(0.016 - 0.196 / 9)
    assert values["net_benefit_all/0.10"] == pytest.approx(0.02 - 0.98 / 9)


def test_at_the_observed_prevalence_nothing_changes():
    values = at({"MEL": 0.25}, n_resamples=0)
    assert values["ppv/MEL"] == pytest.approx(8 / 14)
    assert values["level/refer/share"] == pytest.approx(14 / 40)


def test_intervals_hold_the_value():
    body = figures_at_prevalence(
        LABELS, DECIDED, LEVELS, MALIGNANT, LESIONS, {"MEL": 0.1}, ISIC2018, n_resamples=300
    )
    ppv = body["figures"]["ppv/MEL"]
    assert ppv["low"] < ppv["value"] < ppv["high"]
    # The prevalence is given, so it has no spread.
    share = body["figures"]["malignant_share"]
    assert (share["low"], share["high"]) == pytest.approx((0.1, 0.1))


def test_classes_that_are_not_named_share_the_rest():
    labels = np.array([MEL] * 2 + [NV] * 6 + [BCC] * 2)
    weights = class_weights(labels, {"MEL": 0.02}, ISIC2018)
    # 0.98 is left for NV and BCC, 3 to 1: 0.735 and 0.245.
    np.testing.assert_allclose(weights[[MEL, NV, BCC]], [0.1, 0.735 / 0.6, 0.245 / 0.2])


def test_what_cannot_be_computed_is_refused():
    with pytest.raises(DataError, match="no images of VASC"):
        at({"VASC": 0.1})
    with pytest.raises(DataError, match="no other class has images"):
        at({"MEL": 0.1, "NV": 0.2})
    with pytest.raises(UsageError, match="'XX'"):
        at({"XX": 0.1})


@pytest.mark.parametrize(
    "text", ["", "MEL", "MEL=x", "MEL=2", "MEL=nan", "=0.1", "MEL=0.1,MEL=0.2", "MEL=0.6,NV=0.6"]
)
def test_wrong_prevalence_is_a_usage_error(text: str):
    with pytest.raises(UsageError, match="--prevalence"):
        parse_prevalence(text)


def test_prevalence_as_written():
    assert parse_prevalence("MEL=0.02, BCC=0.01") == {"MEL": 0.02, "BCC": 0.01}
