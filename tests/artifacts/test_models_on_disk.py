"""Networks and what is made of them on disk: each is refused where it does not fit the others."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save as save_tensors

from skinlesion_cli.artifacts import envelope, exports, member_predictions
from skinlesion_cli.artifacts.bundle import Bundle, architecture_of, bundled_model, locate_model
from skinlesion_cli.artifacts.calibration import Calibration
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.ensemble import Ensemble, Member
from skinlesion_cli.artifacts.envelope import write_artifact
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.training_state import TrainingState, remove_state
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.schema import Preprocessing, Recipe
from skinlesion_cli.decisions.triage import DecisionRule
from skinlesion_cli.errors import ArtifactError
from tests.support.class_lists import ISIC2018

VIEWS = ("identity", "hflip")
WEIGHTS = save_tensors({"weight": np.zeros(2, np.float32)})


def network(path: Path, arch: str = "tiny", fold: int | None = None, seed: int = 1) -> Checkpoint:
    recipe = Recipe(name="test", epochs=1, batch_size=1, input_size_px=32, learning_rate=1e-3)
    made = Checkpoint(
        arch,
        recipe,
        Preprocessing(input_size_px=32),
        WEIGHTS,
        b"epoch\n",
        {},
        "none",
        seed,
        fold,
        classes=ISIC2018,
    )
    made.save(path)
    return Checkpoint.load(path)


def finished(workspace: Workspace, **changes) -> Workspace:
    """One network, an ensemble of it and a calibration of that."""
    made = network(workspace.checkpoint("tiny"))
    assert made.artifact
    member = Member("tiny", made.artifact.sha256, 1.0, 0.5)
    values = {"members": (member,), "method": "equal", "views": VIEWS} | changes
    combined = Ensemble(**values, classes=ISIC2018).save(workspace.ensemble)
    calibrated = Calibration(DecisionRule(ISIC2018), "none", "d4", VIEWS)
    calibrated.save(workspace.calibration, inputs={"ensemble": combined})
    return workspace


# Bundles


def test_a_bundle_is_named_by_its_parts(tmp_path):
    found = Bundle.load(finished(Workspace(tmp_path)))
    assert (found.model_id, found.is_bundled, found.gate) == ("tiny", False, None)
    assert architecture_of(str(tmp_path)) == "tiny"
    assert Bundle.load(Workspace(tmp_path)).sha256 == found.sha256


def test_a_network_trained_again_no_longer_fits(tmp_path):
    workspace = finished(Workspace(tmp_path))
    network(workspace.checkpoint("tiny"), seed=2)
    with pytest.raises(ArtifactError, match=r"models/tiny is .* but the ensemble was built from") as told:
        Bundle.load(workspace)
    assert "skinlesion ensemble" in told.value.hint


def test_a_table_from_elsewhere_cannot_predict(tmp_path):
    outside = Member("table", None, 1.0, None)
    with pytest.raises(ArtifactError, match="member table of the ensemble is a table of predictions"):
        Bundle.load(finished(Workspace(tmp_path), members=(outside,)))


def test_an_ensemble_of_an_earlier_version_combined_by_rank_is_refused(tmp_path):
    workspace = finished(Workspace(tmp_path))
    stored = json.loads(workspace.ensemble.read_text())
    body = stored["body"] | {"method": "rank", "parameters": {"rank_reference": [[[0.5] * 257] * 7]}}
    write_artifact(workspace.ensemble, kind="ensemble", schema_version=1, body=body)
    with pytest.raises(ArtifactError, match="combined by rank") as refused:
        Ensemble.load(workspace.ensemble)
    assert "skinlesion ensemble" in refused.value.hint


def test_parameters_that_no_method_has_are_refused(tmp_path):
    workspace = finished(Workspace(tmp_path))
    stored = json.loads(workspace.ensemble.read_text())
    for parameters, accepted in (({}, True), ({"other": 1}, False)):
        body = stored["body"] | {"parameters": parameters}
        write_artifact(workspace.ensemble, kind="ensemble", schema_version=1, body=body)
        if accepted:
            assert Ensemble.load(workspace.ensemble).method == "equal"
        else:
            with pytest.raises(ArtifactError, match="parameters"):
                Ensemble.load(workspace.ensemble)


def test_networks_of_two_architectures_are_no_one_start(tmp_path):
    workspace = Workspace(tmp_path)
    made = [network(workspace.checkpoint(name), name) for name in ("one", "two")]
    parts = tuple(Member(m.arch, m.artifact.sha256, 0.5, 0.5) for m in made if m.artifact)
    finished(workspace, members=parts)
    with pytest.raises(ArtifactError, match="are of one, two"):
        architecture_of(str(tmp_path))


def test_where_the_model_lies(tmp_path, monkeypatch):
    begun, empty = Workspace(tmp_path / "begun"), Workspace(tmp_path / "empty")
    network(begun.checkpoint("tiny"))
    empty.root.mkdir()
    assert locate_model(begun) == begun
    assert locate_model(empty) == bundled_model() == locate_model(begun, "builtin")
    assert locate_model(begun, str(tmp_path / "other")) == Workspace(tmp_path / "other")
    with pytest.raises(ArtifactError, match="there is no workspace"):
        locate_model(Workspace(tmp_path / "none"))
    with pytest.raises(ArtifactError, match="no trained network"):
        Bundle.load(empty)
    monkeypatch.setattr("skinlesion_cli.artifacts.bundle._package_folder", lambda: empty)
    with pytest.raises(ArtifactError, match="no bundled model"):
        bundled_model()


# Members of an ensemble


def predicted(workspace: Workspace, name: str, part: str, value: float, inputs: dict[str, str]) -> None:
    rows = pd.DataFrame({"id": ["a"], "lesion_id": ["1"], "label": ["MEL"], "fold": [""]})
    values = np.full((1, 2, 7), (1 - value) / 6, np.float32)
    values[:, :, 0] = value
    made = Predictions(rows, values, VIEWS, name, part, classes=ISIC2018)
    made.save(workspace.predictions(name, part), inputs=inputs)


def test_folds_speak_as_one_member(tmp_path):
    workspace = Workspace(tmp_path)
    for fold in (0, 1):
        network(workspace.checkpoint(f"tiny-fold{fold}"), fold=fold)
        predicted(workspace, f"tiny-fold{fold}", "test", 0.1 + 0.2 * fold, {})
    network(workspace.checkpoint("tiny-foldx"))
    predicted(workspace, "tiny", "oof", 0.5, {"checkpoint-fold1": "b" * 64, "checkpoint-fold0": "a" * 64})
    network(workspace.checkpoint("alone"))
    predicted(workspace, "alone", "val", 0.25, {"checkpoint": "c" * 64})
    assert workspace.members() == ["alone", "tiny", "tiny-foldx"]
    assert (
        member_predictions.has_test(workspace, "tiny"),
        member_predictions.has_test(workspace, "alone"),
    ) == (True, False)
    found = member_predictions.read_test(workspace, "tiny")
    assert (found.source, found.view_probabilities[0, 0, 0]) == ("tiny", np.float32(0.2))
    folded, single = (member_predictions.read_validation(workspace, name) for name in ("tiny", "alone"))
    assert member_predictions.networks(folded) == [("tiny-fold0", "a" * 64), ("tiny-fold1", "b" * 64)]
    assert member_predictions.networks(single) == [("alone", "c" * 64)]
    with pytest.raises(ArtifactError) as told:
        member_predictions.read_test(workspace, "alone")
    assert told.value.hint == "Run `skinlesion train --arch alone` again: it predicts what is missing."


# Exports


def test_an_export_belongs_to_one_network(tmp_path):
    made = network(tmp_path / "tiny" / "checkpoint.json")
    assert not exports.is_there(made, "onnx")
    weight = np.arange(14, dtype=np.float32).reshape(7, 2)
    exports.Export("onnx", b"graph", weight, {"images": 3}).save_for(made)
    assert exports.is_there(made, "onnx")
    found = exports.Export.load_for(made, "onnx")
    assert (found.model, found.figures) == (b"graph", {"images": 3})
    assert found.classifier.tolist() == weight.tolist()
    other = network(tmp_path / "tiny" / "checkpoint.json", seed=2)
    assert not exports.is_there(other, "onnx")
    with pytest.raises(ArtifactError, match="was made from checkpoint"):
        exports.Export.load_for(other, "onnx")
    larger = dataclasses.replace(made, preprocessing=Preprocessing(input_size_px=64))
    with pytest.raises(ArtifactError, match="has preprocessing"):
        exports.Export.load_for(larger, "onnx")
    unwritten = dataclasses.replace(made, artifact=None)
    for act in (lambda: exports.path_of(unwritten, "onnx"), lambda: found.save_for(unwritten)):
        with pytest.raises(ValueError, match="checkpoint"):
            act()


# A training under way


def test_the_state_of_a_training_is_replaced_and_dropped(tmp_path):
    path = Workspace(tmp_path).training_state("tiny")
    remove_state(path)
    for epoch in (1, 2):
        tensors = save_tensors({"weight": np.full(epoch, 1.0, np.float32)})
        TrainingState("same", tensors, {"progress": {"epoch": epoch}}).save(path)
    found = TrainingState.load(path)
    assert found == TrainingState("same", tensors, {"progress": {"epoch": 2}})
    assert found.epochs_finished == 2
    assert len(list(path.parent.iterdir())) == 2
    remove_state(path)
    assert list(path.parent.parent.iterdir()) == []


def test_a_recipe_that_was_changed_by_hand(tmp_path):
    made = network(tmp_path / "checkpoint.json")
    assert made.artifact
    body = made.artifact.body | {"recipe": made.artifact.body["recipe"] | {"epochs": 9}}
    envelope.write_artifact(
        tmp_path / "checkpoint.json",
        kind=Checkpoint.KIND,
        schema_version=1,
        body=body,
        payloads={"weights": (".safetensors", WEIGHTS), "history": (".csv", b"")},
        config_sha256=made.recipe.sha256(),
        preprocessing=made.artifact.preprocessing,
    )
    with pytest.raises(ArtifactError, match="does not have the hash"):
        Checkpoint.load(tmp_path / "checkpoint.json")


def test_an_ensemble_has_members():
    with pytest.raises(ArtifactError, match="without members"):
        Ensemble((), "equal", VIEWS, classes=ISIC2018)


def test_without_a_stopping_rule_the_mean_is_over_all_views():
    found = Calibration(DecisionRule(ISIC2018), "none", "d4", VIEWS)
    values = np.zeros((1, 2, 7), np.float32)
    values[0, 0, 0], values[0, 1, 1] = 1.0, 1.0
    rows = pd.DataFrame({"id": ["a"], "lesion_id": ["1"], "label": ["MEL"], "fold": [""]})
    made = Predictions(rows, values, VIEWS, "one", "val", classes=ISIC2018)
    assert found.averaged(made)[0, :2].tolist() == [0.5, 0.5]
    found.require_views(VIEWS)
    with pytest.raises(ArtifactError, match=r"identity, hflip, but these predictions use identity"):
        found.require_views(("identity",))
