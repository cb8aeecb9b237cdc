"""Predictions with patient metadata on their way through ensemble, calibrate and evaluate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.artifacts.calibration import Calibration
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.decisions.statistics import metrics
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages.calibrate import stage as calibrate
from skinlesion_cli.stages.ensemble import stage as ensemble
from skinlesion_cli.stages.evaluate import stage as evaluate
from skinlesion_cli.stages.info import stage as info
from skinlesion_cli.stages.info.settings import InfoSettings
from tests.support import made_workspace


def say_more(workspace: Workspace, name: str, part: str) -> None:
    """Predictions with metadata: of every second image, with half of the probability moved to its class."""
    alone = Predictions.load(workspace.predictions(name, part))
    values = alone.view_probabilities.copy()
    values[::2] *= 0.5
    values[np.arange(0, len(values), 2), :, alone.labels[::2]] += 0.5
    informed = replace(alone, view_probabilities=values, part=f"{part}-metadata", artifact=None)
    assert alone.artifact is not None
    informed.save(workspace.predictions(name, f"{part}-metadata"), inputs=alone.artifact.inputs)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two members, the first of which takes metadata."""
    made = made_workspace.make(tmp_path_factory.mktemp("gain"), n_lesions=300)
    for part in ("val", "test"):
        say_more(made, "one", part)
    ensemble.run(ensemble.EnsembleSettings(workspace=made.root, method="equal"), SilentReporter())
    calibrate.run(calibrate.CalibrateSettings(workspace=made.root), SilentReporter())
    return made


def test_the_ensemble_takes_each_member_as_it_predicts(workspace: Workspace) -> None:
    with_it, two = (
        Predictions.load(workspace.predictions(name, part)).view_probabilities
        for name, part in (("one", "test-metadata"), ("two", "test"))
    )
    merged = Predictions.load(workspace.ensemble_predictions("test-metadata"))
    np.testing.assert_allclose(merged.view_probabilities, (with_it + two) / 2, atol=1e-6)


def test_each_kind_of_prediction_has_its_calibration(workspace: Workspace) -> None:
    plain, informed = (
        Calibration.load(path) for path in (workspace.calibration, workspace.metadata_calibration)
    )
    for calibration, part in ((plain, "val"), (informed, "val-metadata")):
        assert calibration.artifact is not None
        predictions = Predictions.load(workspace.ensemble_predictions(part))
        assert predictions.artifact is not None
        assert calibration.artifact.inputs["predictions"] == predictions.artifact.sha256
    assert plain.rule != informed.rule
    told = info.run(InfoSettings(workspace=workspace.root), SilentReporter())
    assert "another for images with patient metadata" in str(told.tables)


def test_the_gain_is_measured_where_something_is_known(workspace: Workspace) -> None:
    settings = evaluate.EvaluateSettings(workspace=workspace.root, n_resamples=50)
    result = evaluate.run(settings, SilentReporter())
    gain = result.figures["patient_metadata"]
    test = Predictions.load(workspace.ensemble_predictions("test"))
    assert (gain["images"], gain["images_without"]) == (-(-len(test.table) // 2), len(test.table) // 2)
    bacc = []
    for path, part in (
        (workspace.calibration, "test"),
        (workspace.metadata_calibration, "test-metadata"),
    ):
        predictions = Predictions.load(workspace.ensemble_predictions(part)).at(range(0, len(test.table), 2))
        decided = Calibration.load(path).decide(predictions.probabilities).decisions.decided
        bacc.append(metrics.balanced_accuracy(predictions.labels, decided))
    found = gain["differences"]["bacc"]
    assert [found["image_alone"], found["with_metadata"]] == pytest.approx(bacc)
    assert found["value"] == pytest.approx(bacc[1] - bacc[0])
    assert 0.0 < found["low"] < found["value"] < found["high"]
    assert any("Patient metadata" in table.title for table in result.tables)
    argmax = evaluate.run(settings.replace(decision="argmax"), SilentReporter()).figures["patient_metadata"]
    assert argmax["decision"] == "argmax"


def test_without_predictions_with_metadata_nothing_of_it_is_left(workspace: Workspace, tmp_path) -> None:
    import shutil

    copy = Workspace(tmp_path / "copy")
    shutil.copytree(workspace.root, copy.root)
    for path in copy.models.glob("*/predictions-*-metadata.json"):
        path.unlink()
    ensemble.run(ensemble.EnsembleSettings(workspace=copy.root, method="equal"), SilentReporter())
    assert not copy.ensemble_predictions("val-metadata").exists()
    calibrate.run(calibrate.CalibrateSettings(workspace=copy.root), SilentReporter())
    assert not copy.metadata_calibration.exists()
    result = evaluate.run(evaluate.EvaluateSettings(workspace=copy.root, n_resamples=0), SilentReporter())
    assert result.figures["patient_metadata"] is None


def test_a_calibration_of_another_ensemble_is_refused(workspace: Workspace, tmp_path) -> None:
    import shutil

    from skinlesion_cli.errors import ArtifactError

    copy = Workspace(tmp_path / "copy")
    shutil.copytree(workspace.root, copy.root)
    old = copy.metadata_calibration.read_bytes()
    ensemble.run(ensemble.EnsembleSettings(workspace=copy.root, method="bacc"), SilentReporter())
    calibrate.run(calibrate.CalibrateSettings(workspace=copy.root), SilentReporter())
    copy.metadata_calibration.write_bytes(old)
    with pytest.raises(ArtifactError, match="calibration-metadata"):
        Bundle.load(copy)
