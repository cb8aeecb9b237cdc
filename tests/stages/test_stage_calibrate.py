"""Calibration on disk is what prediction does; what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from skinlesion_cli.artifacts.calibration import Calibration
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.policy import load_policy
from skinlesion_cli.decisions.policies.published import PUBLISHED_TARGETS, published_thresholds
from skinlesion_cli.decisions.probability_fit import fit
from skinlesion_cli.decisions.settings import FitSettings, GuaranteeSettings, Target, TriageSettings
from skinlesion_cli.decisions.thresholds import decide
from skinlesion_cli.errors import ArtifactError, DataError
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages.calibrate import stage
from skinlesion_cli.stages.ensemble import stage as ensemble
from tests.support import made_workspace
from tests.support.class_lists import ISIC2018


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
    wanted = published_thresholds(
        validation.labels, validation.probabilities, PUBLISHED_TARGETS, ISIC2018
    ).thresholds
    assert calibration.rule.thresholds == wanted
    assert calibration.rule.probability_calibration.method == "none"
    outcome = calibration.decide(validation.probabilities)
    expected = decide(validation.probabilities, wanted, ISIC2018, ("MEL", "AKIEC"))
    assert (outcome.decisions.decided == expected.decided).all()
    assert (calibration.guarantees, calibration.rule.alarms, calibration.rule.class_offsets) == ((), {}, ())
    assert [each["level"] for each in calibration.level_guarantees] == ["refer", "routine"]


def test_the_settings_of_guarantees_are_stored(workspace: Workspace):
    run(workspace, FitSettings(guarantee=GuaranteeSettings(0.9, 50)))
    found = Calibration.load(workspace.calibration).guarantee_settings
    assert found == {"confidence": 0.9, "horizon": 50}


# 600 lesions are too few for a risk of 1 in 100.
LENIENT = FitSettings(triage=TriageSettings(routine_risk=0.05))


def test_what_is_stored_decides_as_what_was_fitted(workspace: Workspace):
    result = run(workspace, LENIENT)
    calibration = Calibration.load(workspace.calibration)
    assert calibration.policy == "guaranteed"
    assert (calibration.tta_mode, len(calibration.views)) == ("d4", 8)
    assert [guarantee["class_name"] for guarantee in calibration.guarantees] == ["MEL", "malignant"]
    assert result.figures["rule"]["alarms"] == calibration.rule.alarms
    assert calibration.rule.thresholds == {}
    validation = Predictions.load(workspace.ensemble_predictions("val"))
    outcome = calibration.decide(validation.probabilities)
    mel = validation.labels == 0
    guarantee = calibration.guarantees[0]
    assert outcome.alarms["MEL"][mel].mean() >= guarantee["sensitivity"]
    assert outcome.probabilities.mean(axis=0)[0] == pytest.approx(mel.mean(), rel=0.02)
    assert set(outcome.triage) == {"refer", "review", "routine"}
    assert outcome.conformal_sets.shape == (len(mel), 7)


def test_figures_are_cross_fitted_and_honest(workspace: Workspace):
    run(workspace, LENIENT)
    found = Calibration.load(workspace.calibration)
    before, after = found.probability_figures["before"], found.probability_figures["after_cross_fitted"]
    figures = ["brier", "by_class", "class_error", "ece", "log_loss", "malignant_reliability"]
    assert sorted(before) == sorted(after) == figures
    assert after["class_error"] < before["class_error"]
    malignant = after["by_class"]["malignant"]
    assert malignant["mean_predicted"] == pytest.approx(malignant["observed"], rel=0.10)
    assert 0.8 < malignant["slope"] < 1.2
    levels = found.triage_figures["levels"]
    assert sum(level["share"]["value"] for level in levels.values()) == pytest.approx(1.0)
    risks = [levels[level]["risk"]["value"] for level in ("refer", "review", "routine")]
    assert risks == sorted(risks, reverse=True)
    routine = found.triage_figures["malignant_lesions_in_routine"]
    assert routine["interval_95"][0] <= routine["share"] <= routine["interval_95"][1]
    alarm = found.triage_figures["alarms"]["MEL"]
    assert alarm["sensitivity"]["value"] >= found.guarantees[0]["sensitivity"] - 0.05
    assert found.triage_figures["worst_loss_to_probability"]["value"] < 0.02
    gain = found.support["bacc_gain"]
    assert gain["value"] == pytest.approx(found.support["cross_fitted_bacc"] - found.support["argmax_bacc"])
    assert gain["low"] < gain["value"] < gain["high"]
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
    assert "is not guaranteed" in told
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
        classes=ISIC2018,
    )
    smaller.save(workspace.ensemble_predictions("val"), inputs=found.artifact.inputs)


def test_one_class_only_is_refused_and_a_missing_one_is_not(tmp_path: Path):
    workspace = made_workspace.make(tmp_path, n_lesions=200)
    ensemble.run(ensemble.EnsembleSettings(workspace=workspace.root), SilentReporter())
    reduce_to(workspace, {"MEL", "NV", "BKL"})
    result = run(workspace)
    result = run(workspace, FitSettings(targets=(Target("AKIEC", 0.75),)))
    guarantee = next(p for p in result.figures["guarantees"] if p["class_name"] == "AKIEC")
    assert (guarantee["lesions"], guarantee["sensitivity"], guarantee["granted"]) == (0, None, False)
    conformal = Calibration.load(workspace.calibration).rule.conformal_minimum
    assert conformal[3] == 0.0  # without a lesion, AKIEC is never left out of a set
    reduce_to(workspace, {"NV", "BKL"})
    result = run(workspace)
    malignant = next(p for p in result.figures["guarantees"] if p["class_name"] == "malignant")
    assert (malignant["lesions"], malignant["granted"], malignant["sensitivity"]) == (0, False, None)
    assert result.figures["triage"]["malignant_lesions_in_routine"]["share"] is None
    assert any("malignant" in warning for warning in result.warnings)
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


def test_too_few_lesions_for_a_routine_level_say_so(workspace: Workspace):
    result = run(workspace)
    assert Calibration.load(workspace.calibration).rule.levels.routine_at_most == -1.0
    assert any("routine" in warning for warning in result.warnings)


def test_a_clinics_capacity_is_what_is_referred(workspace: Workspace):
    run(workspace, FitSettings(triage=TriageSettings(refer_share=0.15)))
    found = Calibration.load(workspace.calibration)
    validation = Predictions.load(workspace.ensemble_predictions("val"))
    share = (found.decide(validation.probabilities).triage == "refer").mean()
    assert 0.14 < share <= 0.15
    refer, _ = found.level_guarantees
    assert (refer["figure"], refer["granted"], refer["target"]) == ("ppv", True, None)
    assert 0.0 < refer["guaranteed"] < refer["measured"]


@pytest.mark.parametrize("method", ["temperature", "vector", "dirichlet", "beta", "isotonic"])
def test_every_probability_method_round_trips(workspace: Workspace, method: str):
    run(workspace, FitSettings(probability_method=method))
    found = Calibration.load(workspace.calibration)
    validation = Predictions.load(workspace.ensemble_predictions("val"))
    again = fit(validation.labels, validation.probabilities, method).apply(validation.probabilities)
    assert found.rule.probability_calibration.apply(validation.probabilities) == pytest.approx(
        again, abs=1e-6
    )
