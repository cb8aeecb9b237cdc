"""Members that do not belong together are refused; the rest is arithmetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from skinlesion_cli.artifacts.ensemble import Ensemble
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.errors import ArtifactError, DataError, UsageError
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages.ensemble import stage
from tests.support import made_workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    return made_workspace.make(tmp_path_factory.mktemp("ensemble"), n_lesions=200)


def run(workspace: Workspace, **settings):
    return stage.run(stage.EnsembleSettings(workspace=workspace.root, **settings), SilentReporter())


def change(workspace: Workspace, member: str, inputs: dict | None = None, **changes) -> Workspace:
    path = workspace.predictions(member, "val")
    found = Predictions.load(path)
    replace(found, **changes).save(path, inputs=found.artifact.inputs | (inputs or {}))
    return workspace


def test_merged_predictions_are_the_weighted_mean(workspace: Workspace):
    result = run(workspace)
    ensemble = Ensemble.load(workspace.ensemble)
    one, two = (Predictions.load(workspace.predictions(name, "val")) for name in ("one", "two"))
    merged = Predictions.load(workspace.ensemble_predictions("val"))
    # As published: by the balanced accuracy without test-time augmentation, whatever views are averaged.
    bacc = [balanced_accuracy_score(p.labels, p.view_probabilities[:, 0].argmax(axis=1)) for p in (one, two)]
    assert one.views[0] == "identity"
    assert [member.single_view_bacc for member in ensemble.members] == pytest.approx(bacc)
    assert ensemble.weights.tolist() == pytest.approx([b / sum(bacc) for b in bacc], abs=1e-12)
    assert [member.validation_bacc for member in ensemble.members] == pytest.approx(
        [balanced_accuracy_score(p.labels, p.probabilities.argmax(axis=1)) for p in (one, two)]
    )
    expected = ensemble.weights[0] * one.probabilities + ensemble.weights[1] * two.probabilities
    assert merged.probabilities == pytest.approx(expected, abs=1e-6)
    assert merged.views == one.views
    assert [member.checkpoint_sha256 for member in ensemble.members] == ["0" * 64, "1" * 64]
    assert workspace.ensemble_predictions("test").exists()
    assert result.figures["images"] == len(one.table)
    assert result.next_command == "skinlesion calibrate"


@pytest.mark.parametrize("method", ["equal", "stacked"])
def test_every_method_can_be_calibrated(workspace: Workspace, method: str):
    from skinlesion_cli.stages.calibrate import stage

    run(workspace, method=method)
    ensemble = Ensemble.load(workspace.ensemble)
    assert ensemble.method == method
    stack = np.stack(
        [Predictions.load(workspace.predictions(n, "val")).probabilities for n in ("one", "two")]
    )
    merged = Predictions.load(workspace.ensemble_predictions("val"))
    assert merged.probabilities == pytest.approx(ensemble.merge(stack), abs=1e-6)
    stage.run(stage.CalibrateSettings(workspace=workspace.root), SilentReporter())


def test_fewer_views(workspace: Workspace):
    run(workspace, tta_mode="none")
    merged = Predictions.load(workspace.ensemble_predictions("val"))
    assert merged.views == ("identity",)
    one, two = (Predictions.load(workspace.predictions(name, "val")) for name in ("one", "two"))
    weights = Ensemble.load(workspace.ensemble).weights
    expected = weights[0] * one.view_probabilities[:, 0] + weights[1] * two.view_probabilities[:, 0]
    assert merged.probabilities == pytest.approx(expected, abs=1e-6)


def test_one_member_alone(workspace: Workspace):
    run(workspace, members=("two",))
    assert Ensemble.load(workspace.ensemble).weights.tolist() == [1.0]


def test_members_of_different_splits_are_refused_with_both_values(tmp_path: Path):
    workspace = change(made_workspace.make(tmp_path, n_lesions=60), "two", {"split": "f" * 64})
    split = Predictions.load(workspace.predictions("one", "val")).artifact.inputs["split"]
    with pytest.raises(ArtifactError, match="different splits") as error:
        run(workspace)
    assert split[:12] in str(error.value)
    assert "f" * 12 in str(error.value)


def test_members_that_saw_other_images_are_refused_by_name(tmp_path: Path):
    workspace = made_workspace.make(tmp_path, n_lesions=60)
    found = Predictions.load(workspace.predictions("two", "val"))
    table = found.table.copy()
    table.loc[0, "id"] = "stranger"
    change(workspace, "two", table=table)
    with pytest.raises(ArtifactError, match="stranger"):
        run(workspace)


def test_members_that_disagree_on_a_label_or_the_order_are_refused(tmp_path: Path):
    workspace = made_workspace.make(tmp_path, n_lesions=60)
    found = Predictions.load(workspace.predictions("two", "val"))
    table = found.table.copy()
    table.loc[3, "label"] = "DF" if table.loc[3, "label"] != "DF" else "NV"
    change(workspace, "two", table=table)
    with pytest.raises(ArtifactError, match="label of val_00003"):
        run(workspace)
    change(workspace, "two", table=found.table.iloc[::-1].reset_index(drop=True))
    with pytest.raises(ArtifactError, match="another order"):
        run(workspace)


def test_members_with_other_views_are_refused_with_both_values(tmp_path: Path):
    workspace = made_workspace.make(tmp_path, n_lesions=60)
    found = Predictions.load(workspace.predictions("two", "val"))
    change(workspace, "two", view_probabilities=found.view_probabilities[:, :1], views=("identity",))
    with pytest.raises(ArtifactError, match=r"identity.*lack.*hflip"):
        run(workspace)
    run(workspace, tta_mode="none")


def test_unknown_members_methods_and_views(workspace: Workspace, tmp_path: Path):
    with pytest.raises(UsageError, match="three"):
        run(workspace, members=("one", "three"))
    with pytest.raises(UsageError, match="median"):
        run(workspace, method="median")
    with pytest.raises(UsageError, match="d5"):
        run(workspace, tta_mode="d5")
    with pytest.raises(ArtifactError, match="no network is trained"):
        run(Workspace(tmp_path))


def test_a_class_missing_from_validation_is_told(tmp_path: Path):
    workspace = made_workspace.make(tmp_path, n_lesions=60)
    for member in ("one", "two"):
        found = Predictions.load(workspace.predictions(member, "val"))
        kept = (found.table["label"] != "NV").to_numpy()
        change(
            workspace,
            member,
            table=found.table[kept].reset_index(drop=True),
            view_probabilities=found.view_probabilities[kept],
        )
    result = run(workspace)
    assert "NV" in result.figures["classes_without_images"]
    assert any("NV" in warning for warning in result.warnings)


def test_tables_from_elsewhere(tmp_path: Path):
    a = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\nx,0.6,0.4,0,0,0,0,0\ny,0.3,0.7,0,0,0,0,0\n"
    b = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\ny,0.1,0.9,0,0,0,0,0\nx,0.2,0.8,0,0,0,0,0\n"
    truth = "id,label,lesion_id\nx,MEL,L1\ny,NV,L2\n"
    for name, text in (("a.csv", a), ("b.csv", b), ("truth.csv", truth)):
        (tmp_path / name).write_text(text)
    workspace = Workspace(tmp_path / "ws")
    tables = (tmp_path / "a.csv", tmp_path / "b.csv")
    result = run(workspace, tables=tables, truth=tmp_path / "truth.csv", method="equal")
    merged = Predictions.load(workspace.ensemble_predictions("val"))
    assert merged.table["id"].tolist() == ["x", "y"]
    assert merged.probabilities[:, 0].tolist() == pytest.approx([0.4, 0.2])
    assert Ensemble.load(workspace.ensemble).members[0].checkpoint_sha256 is None
    assert any("trained on these images" in warning for warning in result.warnings)
    with pytest.raises(UsageError, match="do not mix"):
        run(workspace, tables=tables, members=("one",))
    with pytest.raises(DataError, match="no truth was given"):
        run(workspace, tables=tables)
    (tmp_path / "b.csv").write_text(b.replace("y,", "z,"))
    (tmp_path / "truth.csv").write_text(truth + "z,NV,L3\n")
    with pytest.raises(ArtifactError, match="different images"):
        run(workspace, tables=tables, truth=tmp_path / "truth.csv")
