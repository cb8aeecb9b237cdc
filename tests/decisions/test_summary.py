"""Everything that an evaluation says of six images, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from skinlesion_cli.decisions.evaluation.figures import Estimate, Figures, Labelled, evaluate
from skinlesion_cli.decisions.evaluation.summary import summarise
from skinlesion_cli.decisions.settings import Target
from skinlesion_cli.errors import DataError
from tests.support.class_lists import ISIC2018

# Melanoma lesions a (two images) and b, nevi c and d, a BCC e; the decisions take b for a nevus,
# d for a melanoma.
LABELS = np.array([0, 0, 0, 1, 1, 2])
DECIDED = np.array([0, 0, 1, 1, 0, 2])
LESIONS = np.array(list("aabcde"), dtype=object)
LEVELS = np.array(["refer", "refer", "review", "routine", "refer", "routine"])
MASK = np.array([True, True, False, True, False, False])


@pytest.fixture(scope="module")
def found() -> dict:
    values = np.zeros((6, 7))
    values[np.arange(6), DECIDED] = 0.7
    values[:, 6] = 0.3
    data = Labelled(LABELS, values, DECIDED, LESIONS, ISIC2018)
    figures = evaluate(data, subgroups={"young": MASK}, n_resamples=20)
    wanted, guaranteed = [Target("MEL", 0.5, 0.4)], [Target("BCC", 0.9)]
    return summarise(data, figures, wanted, guaranteed, LEVELS, {"young": MASK})


def test_it_has_these_parts(found):
    assert list(found) == [
        "support",
        "figures",
        "argmax_bacc",
        "confusion_matrix",
        "calibration",
        "targets",
        "guarantees",
        "level_guarantees",
        "triage",
        "triage_figures",
        "subgroups",
    ]


def test_support(found):
    assert found["support"] == {
        "images": 6,
        "lesions": 5,
        "images_by_class": {"MEL": 3, "NV": 2, "BCC": 1, "AKIEC": 0, "BKL": 0, "DF": 0, "VASC": 0},
        "lesions_by_class": {"MEL": 2, "NV": 2, "BCC": 1, "AKIEC": 0, "BKL": 0, "DF": 0, "VASC": 0},
        "classes_without_images": ["AKIEC", "BKL", "DF", "VASC"],
    }


def test_figures_and_the_matrix(found):
    assert found["figures"]["bacc"]["value"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert set(found["figures"]["bacc"]) == {"value", "low", "high", "undefined_resamples"}
    assert not [name for name in found["figures"] if name.startswith("subgroup")]
    assert found["argmax_bacc"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert found["confusion_matrix"][:3, :3].tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_targets_and_guarantees(found):
    (mel,), (bcc,) = found["targets"], found["guarantees"]
    assert (mel["class_name"], mel["sensitivity"]["value"], mel["met"]) == ("MEL", 0.5, True)
    assert (mel["specificity"]["hits"], mel["specificity"]["n"]) == (2, 3)
    assert (bcc["class_name"], bcc["target_sensitivity"], bcc["met"]) == ("BCC", 0.9, True)


def test_triage(found):
    assert {level: found["triage"][level] for level in ("refer", "review", "routine")} == {
        "refer": {"images": 3, "share_of_malignant": 0.5, "share_of_benign": 0.5},
        "review": {"images": 1, "share_of_malignant": 0.25, "share_of_benign": 0.0},
        "routine": {"images": 2, "share_of_malignant": 0.25, "share_of_benign": 0.5},
    }
    seen = found["triage"]["malignant_lesions_seen"]
    assert (seen["hits"], seen["n"]) == (2, 3)


def test_subgroups(found):
    young = found["subgroups"]["young"]
    assert {
        name: young[name] for name in ("images", "lesions", "malignant_images", "classes_without_images")
    } == {
        "images": 3,
        "lesions": 2,
        "malignant_images": 2,
        "classes_without_images": ["BCC", "AKIEC", "BKL", "DF", "VASC"],
    }
    figures = ("bacc", "malignant_sensitivity", "malignant_specificity")
    assert [young[name]["value"] for name in figures] == [1.0, 1.0, 1.0]
    assert len(young) == 7


def test_without_levels_there_is_no_triage():
    values = np.full((6, 7), 1 / 7)
    data = Labelled(LABELS, values, DECIDED, LESIONS, ISIC2018)
    found = summarise(data, evaluate(data, n_resamples=0))
    assert (found["triage"], found["targets"], found["guarantees"], found["subgroups"]) == (None, [], [], {})
    assert np.isnan(found["figures"]["bacc"]["low"])
    with pytest.raises(DataError, match="different classes"):
        summarise(Labelled(LABELS, values, DECIDED, np.array(list("aaaabc")), ISIC2018), Figures({}))


def test_a_figure_that_no_resample_defines():
    figures = Figures({"x": 0.5}, {"x": np.full(4, np.nan)})
    found = figures.estimate("x")
    assert (found.value, found.undefined_resamples) == (0.5, 4)
    assert np.isnan([found.low, found.high]).all()
    some = Figures({"x": 0.5}, {"x": np.array([np.nan, 0.0, 1.0])}).estimate("x", confidence=0.5)
    assert some == Estimate(0.5, 0.25, 0.75, 1)


def test_alarms_and_levels_are_judged_by_what_is_guaranteed_of_them():
    values = np.eye(7)[LABELS]
    data = Labelled(LABELS, values, DECIDED, LESIONS, ISIC2018)
    fires = np.array([True, True, True, False, False, False])
    guaranteed = [
        {"level": "refer", "figure": "ppv", "guaranteed": 0.6},
        {"level": "routine", "figure": "risk", "guaranteed": 0.3},
        {"level": "routine", "figure": "risk", "guaranteed": None},
    ]
    found = summarise(
        data,
        evaluate(data, n_resamples=0),
        targets=[Target("MEL", 0.9, 0.9), Target("malignant", 0.5)],
        levels=LEVELS,
        alarms={"MEL": fires},
        level_guarantees=guaranteed,
    )
    mel, malignant = found["targets"]
    # The alarm catches both melanomas and no nevus, the decided class does neither.
    assert (mel["sensitivity"]["hits"], mel["specificity"]["hits"], mel["met"]) == (2, 3, True)
    # No alarm on malignancy: the decided class stands for it. Lesions a and e of a, b, e.
    assert (malignant["sensitivity"]["hits"], malignant["sensitivity"]["n"], malignant["met"]) == (2, 3, True)
    refer, routine = found["level_guarantees"]
    # Referred: lesion a (both photographs count half each) and the nevus d: 1 of 2 lesions. Routine: c and e.
    assert (refer["photographs"], refer["malignant"]["hits"], refer["malignant"]["n"]) == (0.5, 1, 2)
    assert (refer["met"], routine["photographs"], routine["met"]) == (False, 0.5, False)
