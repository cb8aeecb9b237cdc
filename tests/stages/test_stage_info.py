"""`skinlesion info`: what is done, what is out of date, and what to run next."""

from __future__ import annotations

from pathlib import Path

import pytest

from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.next_command import after_calibration
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.result import StageResult
from skinlesion_cli.stages.download import append
from skinlesion_cli.stages.download.stage import DownloadSettings
from skinlesion_cli.stages.download.stage import run as download
from skinlesion_cli.stages.info import stage
from tests.support import tiny_datasets
from tests.support.tiny_models import make_workspace


def info(root: Path) -> StageResult:
    return stage.run(stage.InfoSettings(workspace=root), SilentReporter())


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A dataset in two folds, and two networks that were trained on it."""
    source = tiny_datasets.write_official(tmp_path / "isic")
    settings = DownloadSettings(workspace=tmp_path / "w", source=source, split="kfold", n_folds=2)
    download(settings, SilentReporter())
    make_workspace(tmp_path / "w")
    workspace = Workspace(tmp_path / "w")
    manifest = Manifest.load(workspace.manifest)
    split = Split.load(workspace.split, manifest)
    assert split.artifact is not None
    assert manifest.artifact is not None
    for name in ("tiny-fold0", "tiny-fold1"):
        checkpoint = Checkpoint.load(workspace.checkpoint(name))
        inputs = {"manifest": manifest.artifact, "split": split.artifact}
        checkpoint.save(workspace.checkpoint(name), inputs=inputs)
    return tmp_path / "w"


def test_networks_of_the_present_split_are_done(trained: Path) -> None:
    figures = info(trained).figures
    assert [network["outdated"] for network in figures["networks"].values()] == [False, False]
    assert figures["dataset"]["sources"] == {"isic2018": 28}


def test_what_was_appended_after_training_is_said_and_training_again_suggested(trained: Path) -> None:
    clinic = trained.parent / "clinic"
    clinic.mkdir()
    (clinic / "a.jpg").write_bytes(tiny_datasets.jpeg(999))
    (clinic / "labels.csv").write_text("image,label\na,melanoma\n")
    added = append.run(DownloadSettings(workspace=trained, source=clinic), SilentReporter())
    assert added.next_command == "skinlesion train --arch tiny --folds 2 --fresh"
    result = info(trained)
    assert [network["outdated"] for network in result.figures["networks"].values()] == [True, True]
    assert result.figures["dataset"]["sources"] == {"clinic": 1, "isic2018": 28}
    assert any("2 of 2 networks were trained before images were added" in note for note in result.warnings)
    assert result.next_command == "skinlesion train --arch tiny --folds 2 --fresh"
    assert result.exit_code == 0


def test_after_a_calibration_come_the_gate_the_evaluation_and_predictions(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(trained)
    workspace.gate.unlink(missing_ok=True)
    assert after_calibration(workspace) == "skinlesion predict ./images --report"
    workspace.ensemble_predictions("test").write_text("{}")
    assert after_calibration(workspace) == "skinlesion evaluate --report"
    assert after_calibration(workspace, evaluated=True) == "skinlesion predict ./images --report"
    # 28 images are too few for a gate, so that none is suggested.
    monkeypatch.setattr("skinlesion_cli.artifacts.next_command.FEWEST_IMAGES", 20)
    assert after_calibration(workspace, evaluated=True) == "skinlesion gate"


def test_in_an_empty_folder_it_is_said_that_predictions_work_already(tmp_path: Path) -> None:
    result = info(tmp_path)
    assert "bundled" in result.headline[1]
    assert [row[0] for row in result.tables[0].rows] == [
        *("download", "train", "ensemble", "calibrate", "gate", "evaluate")
    ]


def test_without_networks_the_folds_of_the_split_are_part_of_what_comes_next(tmp_path: Path) -> None:
    source = tiny_datasets.write_official(tmp_path / "isic")
    settings = DownloadSettings(workspace=tmp_path / "w", source=source, split="kfold", n_folds=3)
    assert (
        download(settings, SilentReporter()).next_command
        == "skinlesion train --arch efficientnet_lite0 --folds 3"
    )
    assert info(tmp_path / "w").next_command == "skinlesion train --arch efficientnet_lite0 --folds 3"
