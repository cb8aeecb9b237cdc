"""Adaptive looks from the ensemble to the evaluation: fitted, stored,
and judged as prediction would decide.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from skinlesion_cli.artifacts.calibration import Calibration
from skinlesion_cli.artifacts.ensemble import Ensemble
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.decisions.statistics import metrics
from skinlesion_cli.errors import ArtifactError, UsageError
from skinlesion_cli.inference import tta
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages.calibrate import stage as calibrate
from skinlesion_cli.stages.calibrate.summary import describe_stopping
from skinlesion_cli.stages.ensemble import stage as ensemble
from skinlesion_cli.stages.evaluate import stage as evaluate
from skinlesion_cli.taxonomy.class_list import ClassList
from tests.support.class_lists import ISIC2018
from tests.support.made_workspace import make


@pytest.fixture(scope="module")
def adaptive(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = make(tmp_path_factory.mktemp("adaptive"), n_lesions=1000)
    ensemble.run(ensemble.EnsembleSettings(workspace=workspace.root), SilentReporter())
    calibrate.run(
        calibrate.CalibrateSettings(workspace=workspace.root, adaptive="decision"), SilentReporter()
    )
    return workspace


def test_the_rule_is_stored_with_what_it_costs(adaptive: Workspace) -> None:
    found = Calibration.load(adaptive.calibration)
    assert found.tta_mode == "adaptive"
    rule, told = found.stopping_rule, found.stopping
    assert rule is not None
    assert told is not None
    assert len(rule.weights) == 2
    assert told["n_steps"] == 16
    assert 1.0 < told["mean_steps"] < 10.0
    assert told["upper_bound"] <= 0.005
    assert told["changed_images"] / told["images"] <= 0.005


def test_evaluation_decides_on_the_looks_that_prediction_would_take(adaptive: Workspace) -> None:
    found = Calibration.load(adaptive.calibration)
    test = Predictions.load(adaptive.ensemble_predictions("test"))
    assert test.member_groups.shape[1:] == (2, 8, 7)
    averaged = found.averaged(test)
    # Some images were left before the last look, and the mean of all looks is another number there.
    assert 0.5 < (np.abs(averaged - test.probabilities).max(axis=1) > 1e-6).mean() < 1.0
    changed = found.decide(averaged).decisions.decided != found.decide(test.probabilities).decisions.decided
    assert changed.mean() <= 0.01
    result = evaluate.run(
        evaluate.EvaluateSettings(workspace=adaptive.root, n_resamples=50), SilentReporter()
    )
    expected = metrics.balanced_accuracy(test.labels, found.decide(averaged).decisions.decided)
    assert result.figures["figures"]["bacc"]["value"] == pytest.approx(expected, abs=1e-12)


def test_predictions_that_lack_the_voices_are_refused(adaptive: Workspace, tmp_path: Path) -> None:
    found = Calibration.load(adaptive.calibration)
    alone = Predictions.load(adaptive.predictions("one", "test"))
    with pytest.raises(ArtifactError, match="for 2 member groups, but these predictions hold 1"):
        found.averaged(alone)


def test_rows_are_taken_from_what_each_network_said_as_well(adaptive: Workspace) -> None:
    test = Predictions.load(adaptive.ensemble_predictions("test"))
    chosen = test.at([5, 2])
    assert chosen.table["id"].tolist() == [test.table["id"][5], test.table["id"][2]]
    np.testing.assert_array_equal(chosen.view_probabilities, test.view_probabilities[[5, 2]])
    np.testing.assert_array_equal(chosen.member_groups, test.member_groups[[5, 2]])


def test_the_folds_of_a_network_are_one_voice(tmp_path: Path) -> None:
    workspace = make(tmp_path, n_lesions=1000)
    found = Predictions.load(workspace.predictions("one", "val"))
    assert found.artifact is not None
    inputs = {role: found.artifact.inputs[role] for role in ("manifest", "split")}
    folds = {f"checkpoint-fold{fold}": f"{fold}" * 64 for fold in (0, 1)}
    found.save(workspace.predictions("one", "oof"), inputs={**inputs, **folds})
    ensemble.run(ensemble.EnsembleSettings(workspace=workspace.root, method="equal"), SilentReporter())
    made = Ensemble.load(workspace.ensemble)
    assert [member.name for member in made.members] == ["one-fold0", "one-fold1", "two"]
    assert made.weights.tolist() == [0.25, 0.25, 0.5]
    # Out of fold each image was judged by one fold alone: how far the folds differ was never measured.
    assert made.member_groups == ((0, 1), (2,))
    assert made.group_weights == (0.5, 0.5)
    calibrate.run(
        calibrate.CalibrateSettings(workspace=workspace.root, adaptive="decision"), SilentReporter()
    )
    rule = Calibration.load(workspace.calibration).stopping_rule
    assert rule is not None
    assert (rule.weights, rule.steps.n) == ((0.5, 0.5), 16)


def test_looks_may_be_whole_and_zoomed(tmp_path: Path) -> None:
    workspace = make(tmp_path, n_lesions=1000, views=tta.MODES["zoom"])
    ensemble.run(ensemble.EnsembleSettings(workspace=workspace.root, tta_mode="zoom"), SilentReporter())
    calibrate.run(
        calibrate.CalibrateSettings(workspace=workspace.root, adaptive="decision"), SilentReporter()
    )
    found = Calibration.load(workspace.calibration)
    assert (found.tta_mode, found.views) == ("adaptive", tta.MODES["zoom"])
    assert found.stopping is not None
    assert found.stopping["n_steps"] == 16


def test_looks_of_few_views_are_refused(tmp_path: Path) -> None:
    workspace = make(tmp_path, n_lesions=100)
    ensemble.run(ensemble.EnsembleSettings(workspace=workspace.root, tta_mode="flips"), SilentReporter())
    with pytest.raises(UsageError, match=r"8 different views.* over flips") as refused:
        calibrate.run(
            calibrate.CalibrateSettings(workspace=workspace.root, adaptive="decision"), SilentReporter()
        )
    assert "d4, zoom, crops" in refused.value.hint


def test_stopping_early_says_nothing_of_triage_where_there_is_none() -> None:
    stopping = {
        "mean_steps": 2.5,
        "n_steps": 24,
        "changed_images": 1,
        "images": 1200,
        "stopping_rule": {"protects": "decision"},
        "upper_bound": 0.0041,
        "confidence": 0.95,
        "triage_changed_share": 0.002,
    }
    said = (
        "adaptive: 2.50 of 24 steps (one view by one network, or by all folds of it) on average; 1 of 1,200 "
        "images get another decision than with all steps (at most 0.41 % of lesions, confidence 95 %)"
    )
    benign = ClassList("benign", tuple(replace(entry, malignant=False) for entry in ISIC2018.entries))
    assert describe_stopping(stopping, benign) == said
    assert describe_stopping(stopping, ISIC2018) == f"{said}, 0.2 % another triage level"
