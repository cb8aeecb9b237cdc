"""What version 0.1.0 wrote is read as before: a workspace, a packed model, tables of predictions."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.artifacts.evaluation import Evaluation
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.near_duplicates import Duplicates
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.training_state import TrainingState
from skinlesion_cli.artifacts.workspace import Workspace
from tests.support.class_lists import ISIC2018
from tests.support.command_line import rows_of, run

pytestmark = pytest.mark.command_line

# Probabilities on another processor may differ in the last digits.
TOLERANCE = 1e-5
SAME = ("status", "argmax", "decision", "threshold_fired", "triage", "conformal_set", "model")


def old_rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def assert_same_results(found: dict[str, dict[str, str]], expected: dict[str, dict[str, str]]) -> None:
    assert list(found) == list(expected) == ["lesion 0.png", "lesion 1.png", "lesion 2.png"]
    for identity, row in expected.items():
        for name in ISIC2018.codes:
            assert float(found[identity][f"p_{name}"]) == pytest.approx(
                float(row[f"p_{name}"]), abs=TOLERANCE
            )
        assert {key: found[identity][key] for key in SAME} == {key: row[key] for key in SAME}


@pytest.mark.parametrize(("model", "table"), [("workspace", "of_workspace.csv"), ("packed", "of_packed.csv")])
def test_an_old_model_predicts_what_it_predicted(
    model: str, table: str, old_version: Path, tmp_path: Path
) -> None:
    done = run(
        "predict",
        old_version / "images",
        "-o",
        tmp_path / "new.csv",
        "--model",
        old_version / model,
        "--report",
    )
    assert done.exit_code == 0, done.output
    assert_same_results(rows_of(tmp_path / "new.csv"), old_rows(old_version / table))
    (page,) = tmp_path.rglob("*.html")
    assert "lesion 2.png" in page.read_text("utf-8")


def test_every_artifact_of_an_old_workspace_is_read(old_version: Path) -> None:
    workspace = Workspace(old_version / "workspace")
    manifest = Manifest.load(workspace.manifest)
    split = Split.load(workspace.split, manifest)
    assert (len(manifest.table), manifest.n_lesions, split.n_folds) == (42, 28, 2)
    assert Duplicates.load(workspace.duplicates).moved is False
    assert TrainingState.load(workspace.training_state("densenet121")).epochs_finished == 3
    out_of_fold = Predictions.load(workspace.predictions("tiny", "oof"))
    assert out_of_fold.view_probabilities.shape == (42, 8, 7)
    (evaluation,) = workspace.root.glob("evaluation/*/evaluation.json")
    assert Evaluation.load(evaluation).body["support"]["images"] == 42
    bundle = Bundle.load(workspace)
    assert bundle.ensemble.member_groups == ((0, 1),)
    assert bundle.gate is not None


def test_an_old_packed_model_keeps_its_stopping_rule(old_version: Path) -> None:
    calibration = Bundle.load(Workspace(old_version / "packed")).calibration
    rule = calibration.stopping_rule
    assert rule is not None
    assert (rule.margin_factor, rule.protects, rule.n_views) == (1.5, "decision", 8)
    assert [guarantee["class_name"] for guarantee in calibration.guarantees] == ["MEL", "AKIEC"]


def test_stages_go_on_in_an_old_workspace(old_version: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(old_version / "workspace", tmp_path / "ws"))
    told = run("info", "-w", root, "--json")
    assert told.exit_code == 0, told.output
    stated = json.loads(told.stdout)["figures"]
    assert stated["networks"]["tiny-fold0"]["val_bacc"] == 0.25
    for arguments in (("ensemble",), ("calibrate",), ("pack", "-o", tmp_path / "packed")):
        done = run(*arguments, "-w", root)
        assert done.exit_code == 0, (arguments, done.output)
    body = json.loads((root / "calibration" / "calibration.json").read_text("utf-8"))["body"]
    # Thresholds overrode the class then; alarms do not.
    assert (body["rule"]["thresholds"], set(body["rule"]["alarms"])) == ({}, {"MEL", "malignant"})
    assert "guarantees" in body
    assert "promises" not in body
    ensemble = json.loads((root / "ensemble" / "ensemble.json").read_text("utf-8"))["body"]
    assert [member["member_group"] for member in ensemble["members"]] == ["tiny", "tiny"]


def test_old_shards_are_merged(old_version: Path, tmp_path: Path) -> None:
    for name in ("shard1.csv", "shard2.csv", "shard1.csv.shard", "shard2.csv.shard"):
        shutil.copyfile(old_version / name, tmp_path / name)
    done = run("merge", tmp_path / "shard1.csv", tmp_path / "shard2.csv", "-o", tmp_path / "all.csv")
    assert done.exit_code == 0, done.output
    assert_same_results(old_rows(tmp_path / "all.csv"), old_rows(old_version / "of_packed.csv"))


def test_an_old_table_is_evaluated(old_version: Path, tmp_path: Path) -> None:
    truth = tmp_path / "truth.csv"
    truth.write_text("image,label\nlesion 0.png,MEL\nlesion 1.png,NV\nlesion 2.png,NV\n")
    done = run(
        *("evaluate", "--source", old_version / "of_packed.csv", "--truth", truth, "--resamples", 0),
        *("-w", tmp_path / "ws", "-o", tmp_path / "evaluation", "--json"),
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["figures"]["support"]["images"] == 3
