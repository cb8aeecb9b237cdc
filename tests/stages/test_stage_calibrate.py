"""Calibration on disk is what prediction does; what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from skinlesion_cli.artifacts.calibration import Calibration
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.policy import load_policy
from skinlesion_cli.decisions.policies.published import published_thresholds
from skinlesion_cli.decisions.settings import FitSettings, GuaranteeSettings, Target
from skinlesion_cli.decisions.thresholds import decide
from skinlesion_cli.errors import ArtifactError, DataError
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages import ensemble
from skinlesion_cli.stages.calibrate import stage
from tests.support import made_workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    workspace = made_workspace.make(tmp_path_factory.mktemp("calibrate"), n_lesions=600)
    ensemble.run(ensemble.EnsembleSettings(workspace=workspace.root), SilentReporter())
    return workspace


def run(workspace: Workspace, settings: FitSettings | None = None):
    return stage.run(
        stage.CalibrateSettings(workspace=workspace.root, fit=settings or FitSettings()),
        SilentReporter(),
    )


def test_published_is_the_published_search_on_plain_probabilities(workspace: Workspace):
    run(workspace, FitSettings(policy="published"))
    calibration = Calibration.load(workspace.calibration)
    validation = Predictions.load(workspace.ensemble_predictions("val"))
    wanted = published_thresholds(validation.labels, validation.probabilities).thresholds
    assert calibration.rule.thresholds == wanted
    assert calibration.rule.probability_calibration.method == "none"
    outcome = calibration.decide(validation.probabilities)
    expected = decide(validation.probabilities, wanted, ("MEL", "AKIEC"))
    assert (outcome.decisions.decided == expected.decided).all()
    assert (calibration.guarantees, calibration.confidence, calibration.guarantee_settings) == ((), None, {})


def test_the_settings_of_guarantees_are_stored(workspace: Workspace):
    run(workspace, FitSettings(guarantee=GuaranteeSettings(0.9, 50, 0.1)))
    found = Calibration.load(workspace.calibration).guarantee_settings
    assert found == {"confidence": 0.9, "horizon": 50, "max_bacc_loss": 0.1}


def test_what_is_stored_decides_as_what_was_fitted(workspace: Workspace):
    result = run(workspace)
    calibration = Calibration.load(workspace.calibration)
    assert calibration.policy == "guaranteed"
    assert (calibration.tta_mode, len(calibration.views)) == ("d4", 8)
    assert [guarantee["class_name"] for guarantee in calibration.guarantees] == ["MEL", "AKIEC"]
    assert result.figures["rule"]["thresholds"] == calibration.rule.thresholds
    validation = Predictions.load(workspace.ensemble_predictions("val"))
    outcome = calibration.decide(validation.probabilities)
    mel = validation.labels == 0
    guarantee = calibration.guarantees[0]
    caught = (outcome.decisions.decided == 0)[mel].mean()
    assert caught >= guarantee["sensitivity"] - 0.05
    assert set(outcome.triage) == {"refer", "review", "routine"}
    assert outcome.conformal_sets.shape == (len(mel), 7)


def test_figures_are_cross_fitted_and_honest(workspace: Workspace):
    run(workspace)
    found = Calibration.load(workspace.calibration)
    before, after = found.probability_figures["before"], found.probability_figures["after_cross_fitted"]
    assert set(before) == set(after) == {"ece", "brier", "log_loss"}
    levels = found.triage_figures["levels"]
    assert sum(level["share_of_images"] for level in levels.values()) == pytest.approx(1.0)
    home = found.triage_figures["malignant_lesions_sent_home"]
    assert home["interval_95"][0] <= home["share"] <= home["interval_95"][1]
    point = found.triage_figures["operating_point"]
    assert point["cross_fitted_sensitivity"]["value"] >= point["sensitivity"] - 0.05
    because = found.triage_figures["review_because"]
    assert 0.0 < sum(because.values()) <= levels["review"]["share_of_images"] + 1e-9
    assert found.support["lesions"] == 600


def test_other_views_are_refused_with_both_named(workspace: Workspace):
    run(workspace)
    calibration = Calibration.load(workspace.calibration)
    calibration.require_views(calibration.views)
    with pytest.raises(ArtifactError, match=r"rot90.*identity"):
        calibration.require_views(("identity",))


def test_a_refused_target_is_a_warning_with_numbers(workspace: Workspace):
    result = run(workspace, FitSettings(targets=(Target("DF", 0.95, 0.99),)))
    told = "\n".join([*result.headline, *result.warnings])
    assert "NOT the target" in told
    assert "DF" in result.warnings[0]
    assert result.figures["guarantees"][0]["granted"] is False


def test_ensemble_made_again_is_refused(tmp_path: Path):
    workspace = made_workspace.make(tmp_path, n_lesions=60)
    ensemble.run(ensemble.EnsembleSettings(workspace=workspace.root), SilentReporter())
    kept = workspace.ensemble.read_bytes()
    ensemble.run(ensemble.EnsembleSettings(workspace=workspace.root, method="equal"), SilentReporter())
    workspace.ensemble.write_bytes(kept)
    with pytest.raises(ArtifactError, match="was made from ensemble"):
        run(workspace)


def test_no_ensemble_yet(tmp_path: Path):
    with pytest.raises(ArtifactError, match="skinlesion ensemble"):
        run(Workspace(tmp_path))


def reduce_to(workspace: Workspace, names: set[str]) -> None:
    """Keep only images of these classes in the merged validation predictions."""
    found = Predictions.load(workspace.ensemble_predictions("val"))
    kept = found.table["label"].isin(names).to_numpy()
    smaller = Predictions(
        found.table[kept].reset_index(drop=True),
        found.view_probabilities[kept],
        found.views,
        found.source,
        "val",
    )
    smaller.save(workspace.ensemble_predictions("val"), inputs=found.artifact.inputs)


def test_one_class_only_is_refused_and_a_missing_one_is_not(tmp_path: Path):
    workspace = made_workspace.make(tmp_path, n_lesions=200)
    ensemble.run(ensemble.EnsembleSettings(workspace=workspace.root), SilentReporter())
    reduce_to(workspace, {"MEL", "NV", "BKL"})
    result = run(workspace)
    guarantee = next(p for p in result.figures["guarantees"] if p["class_name"] == "AKIEC")
    assert (guarantee["lesions"], guarantee["sensitivity"], guarantee["granted"]) == (0, None, False)
    conformal = Calibration.load(workspace.calibration).rule.conformal_minimum
    assert conformal[3] == 0.0  # without a lesion, AKIEC is never left out of a set
    reduce_to(workspace, {"NV", "BKL"})
    result = run(workspace)
    point = result.figures["triage"]["operating_point"]
    assert (point["lesions"], point["granted"], point["cross_fitted_sensitivity"]["value"]) == (
        0,
        False,
        None,
    )
    assert result.figures["triage"]["malignant_lesions_sent_home"]["share"] is None
    assert any("malignancy" in warning for warning in result.warnings)
    reduce_to(workspace, {"NV"})
    with pytest.raises(DataError, match="at least two classes"):
        run(workspace)


@pytest.mark.parametrize("policy", ["published", "cost", "none"])
def test_every_policy_round_trips(workspace: Workspace, policy: str):
    costs = {"missed": {"MEL": 20, "BCC": 5, "AKIEC": 5}}
    settings = load_policy(None, overrides={"policy": policy, "costs": costs, "probabilities": "vector"})
    run(workspace, settings)
    found = Calibration.load(workspace.calibration)
    values = Predictions.load(workspace.ensemble_predictions("val")).probabilities
    assert found.rule.probability_calibration.method == "vector"
    assert np.isfinite(found.decide(values).probabilities).all()
    assert (policy == "none") == (found.rule.thresholds == {})
