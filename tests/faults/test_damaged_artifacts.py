"""What commands say to artifacts that are damaged, foreign, or do not belong together: exit 4,
nothing written.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from skinlesion_cli.artifacts import exports
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.ensemble import Ensemble
from skinlesion_cli.artifacts.files import sha256_bytes
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.schema import canonical_json
from tests.support.class_lists import ISIC2018
from tests.support.command_line import assert_refused, contents, files_below, run

pytestmark = pytest.mark.command_line


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change an envelope and state its hash anew, as a careful forger (or a newer version) would."""
    envelope = json.loads(path.read_text("utf-8"))
    del envelope["sha256"]
    change(envelope)
    stated = envelope | {"sha256": sha256_bytes(canonical_json(envelope))}
    path.write_text(json.dumps(stated), encoding="utf-8")


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def altered(path: Path) -> None:
    envelope = json.loads(path.read_text("utf-8"))
    envelope["body"]["views"] = ["identity"]
    path.write_text(json.dumps(envelope), encoding="utf-8")


def newer(path: Path) -> None:
    rewritten(path, lambda envelope: envelope.update(schema_version=99))


def of_other_classes(path: Path) -> None:
    rewritten(path, lambda envelope: envelope.update(class_order=list(reversed(ISIC2018.codes))))


def of_another_kind(path: Path) -> None:
    rewritten(path, lambda envelope: envelope.update(kind="split"))


DAMAGE = {
    "empty": (emptied, ("cannot be read",)),
    "truncated": (truncated, ("cannot be read",)),
    "altered": (altered, ("was altered after it was written",)),
    "newer": (newer, ("99", "reads up to")),
    "class order": (of_other_classes, ("['VASC', 'DF'", "['MEL', 'NV'")),
    "kind": (of_another_kind, ("kind split",)),
}
READERS = {
    "ensemble": ("models/one/predictions-val.json", ("ensemble",)),
    "calibrate": ("ensemble/ensemble.json", ("calibrate",)),
    "calibrate, predictions": ("ensemble/predictions-val.json", ("calibrate",)),
    "evaluate": ("calibration/calibration.json", ("evaluate", "--resamples", "0")),
    "evaluate, predictions": ("ensemble/predictions-test.json", ("evaluate", "--resamples", "0")),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_artifact_stops_the_command_that_reads_it(
    reader: str, damage: str, own_calibrated: Path
) -> None:
    place, arguments = READERS[reader]
    spoil, words = DAMAGE[damage]
    spoil(own_calibrated / place)
    before = contents(own_calibrated)
    assert_refused(run(*arguments, "-w", own_calibrated), 4, Path(place).name, *words)
    assert contents(own_calibrated) == before


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    "place", ["models/tiny-fold0/checkpoint.json", "ensemble/ensemble.json", "calibration/calibration.json"]
)
def test_a_damaged_model_predicts_nothing(
    place: str, damage: str, tiny_workspace: Path, images: Path, tmp_path: Path
) -> None:
    workspace = Path(shutil.copytree(tiny_workspace, tmp_path / "ws"))
    spoil, words = DAMAGE[damage]
    spoil(workspace / place)
    done = run("predict", images, "-o", tmp_path / "out" / "out.csv", "-w", workspace)
    assert_refused(done, 4, Path(place).name, *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_payload_predicts_nothing(
    damage: str, tiny_workspace: Path, images: Path, tmp_path: Path
) -> None:
    workspace = Path(shutil.copytree(tiny_workspace, tmp_path / "ws"))
    (weights,) = workspace.glob("models/*/checkpoint.weights-*.safetensors")
    content = weights.read_bytes()
    if damage == "gone":
        weights.unlink()
    else:
        end = len(content) - 100
        tail = b"" if damage == "cut" else bytes([content[end] ^ 1]) + content[end + 1 :]
        weights.write_bytes(content[:end] + tail)
    done = run("predict", images, "-o", tmp_path / "out.csv", "-w", workspace)
    words = ("missing",) if damage == "gone" else ("is damaged", "checkpoint.json states")
    assert_refused(done, 4, weights.name, *words)
    assert not (tmp_path / "out.csv").exists()


def test_stages_with_other_views_name_both(own_trained: Path) -> None:
    workspace = Workspace(own_trained)
    path = workspace.predictions("two", "val")
    found = Predictions.load(path)
    assert found.artifact is not None
    fewer = replace(found, view_probabilities=found.view_probabilities[:, :1], views=("identity",))
    fewer.save(path, inputs=found.artifact.inputs)
    assert_refused(run("ensemble", "-w", own_trained), 4, "two was predicted", "identity", "hflip")
    assert not workspace.ensemble.exists()


def test_a_calibration_of_another_ensemble_names_both(
    own_calibrated: Path, images: Path, tmp_path: Path
) -> None:
    calibrated = json.loads((own_calibrated / "calibration" / "calibration.json").read_text())
    assert run("ensemble", "--method", "equal", "-w", own_calibrated).exit_code == 0
    ensemble = json.loads((own_calibrated / "ensemble" / "ensemble.json").read_text())
    both = (calibrated["inputs"]["ensemble"][:12], ensemble["sha256"][:12])
    assert both[0] != both[1]
    assert_refused(run("evaluate", "-w", own_calibrated), 4, "was made from ensemble", *both)
    done = run("predict", images, "-o", tmp_path / "out.csv", "-w", own_calibrated)
    assert_refused(done, 4, "was made from ensemble", *both)
    assert not (own_calibrated / "evaluation").exists()
    assert not (tmp_path / "out.csv").exists()


def test_an_export_with_other_preprocessing_names_both(
    tiny_workspace: Path, images: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    workspace = Path(shutil.copytree(tiny_workspace, tmp_path / "ws"))
    space = Workspace(workspace)
    (name,) = space.trained()
    # The network itself is never reached.
    export = exports.Export("onnx", b"no network", np.zeros((7, 2), np.float32), {})
    path = export.save_for(Checkpoint.load(space.checkpoint(name))).path
    rewritten(path, lambda envelope: envelope["preprocessing"].update(input_size_px=48))
    done = run("predict", images, "-o", tmp_path / "out.csv", "-w", workspace)
    assert_refused(done, 4, path.name, "'input_size_px': 48", "'input_size_px': 32")
    assert [name for name in files_below(tmp_path) if name.startswith("out")] == []


def with_classifier(workspace: Path, weight: np.ndarray | float, bias: np.ndarray | float) -> None:
    """Give the one network of the workspace another last layer; all artifacts are whole and fit together."""
    space = Workspace(workspace)
    (name,) = space.trained()
    found = Checkpoint.load(space.checkpoint(name))
    tensors = load_tensors(found.weights)
    for part, values in (("weight", weight), ("bias", bias)):
        key = next(key for key in tensors if key.endswith(f"classifier.{part}"))
        tensors[key] = np.zeros_like(tensors[key]) + np.asarray(values, dtype=np.float32)
    checkpoint = replace(found, weights=save_tensors(tensors), artifact=None).save(space.checkpoint(name))
    old = Ensemble.load(space.ensemble)
    member = replace(old.members[0], checkpoint_sha256=checkpoint.sha256)
    made = replace(old, members=(member,), artifact=None).save(space.ensemble)
    rewritten(space.calibration, lambda envelope: envelope["inputs"].update(ensemble=made.sha256))


UP_AND_DOWN = np.array([[1], [-1], [1], [-1], [1], [-1], [1]])
NO_NUMBERS = {
    "NaN": (0.0, np.nan, ("NaN or infinity", "classifier.bias")),
    "infinity": (np.inf, 0.0, ("NaN or infinity", "classifier.weight")),
    # Every weight is finite; what comes of them is not.
    "overflow": (3e38 * UP_AND_DOWN, 3.4e38 * UP_AND_DOWN[:, 0], ("not finite", "image 000.jpg")),
}


@pytest.mark.parametrize(("weight", "bias", "words"), NO_NUMBERS.values(), ids=NO_NUMBERS.keys())
def test_a_network_that_gives_no_numbers_predicts_nothing(
    weight: float, bias: float, words: tuple[str, ...], tiny_workspace: Path, images: Path, tmp_path: Path
) -> None:
    workspace = Path(shutil.copytree(tiny_workspace, tmp_path / "ws"))
    with_classifier(workspace, weight, bias)
    arguments = ("predict", images, "-o", tmp_path / "out.csv", "-w", workspace)
    assert_refused(run(*arguments), 4, *words)
    assert [name for name in files_below(tmp_path) if name.startswith("out")] == []
    # With a network that is whole, the same command begins anew.
    shutil.rmtree(workspace)
    shutil.copytree(tiny_workspace, workspace)
    assert run(*arguments).exit_code == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("place", "arguments"),
    [
        ("models/one/predictions-val.json", ("ensemble",)),
        ("ensemble/predictions-val.json", ("calibrate",)),
        ("ensemble/predictions-test.json", ("evaluate", "--resamples", 0)),
    ],
)
def test_stored_predictions_that_are_no_numbers_are_refused(
    place: str, arguments: tuple[object, ...], value: float, own_calibrated: Path
) -> None:
    path = own_calibrated / place
    found = Predictions.load(path)
    assert found.artifact is not None
    tensor = found.view_probabilities.copy()
    tensor[3, 2, 0] = value
    payload = save_tensors({"view_probabilities": tensor})
    file = path.with_name(f"{path.stem}.views-{sha256_bytes(payload)[:12]}.safetensors")
    file.write_bytes(payload)
    record = {"file": file.name, "sha256": sha256_bytes(payload), "bytes": len(payload)}
    rewritten(path, lambda envelope: envelope["payloads"].update(views=record))
    before = contents(own_calibrated)
    assert_refused(run(*arguments, "-w", own_calibrated), 4, "not finite for", found.table["id"][3])
    assert contents(own_calibrated) == before


@pytest.mark.parametrize("value", ["nan", "inf", "", "x", "-0.1"])
@pytest.mark.parametrize("arguments", [("ensemble", "--predictions"), ("evaluate", "--source")])
def test_tables_with_what_is_no_probability_are_refused(
    arguments: tuple[str, str], value: str, tmp_path: Path
) -> None:
    header = ",".join(["id", *(f"p_{name}" for name in ISIC2018.codes), "label"])
    (tmp_path / "p.csv").write_text(f"{header}\ngood,0,1,0,0,0,0,0,NV\nbad,0,1,{value},0,0,0,0,NV\n")
    done = run(*arguments, tmp_path / "p.csv", "-w", tmp_path / "ws")
    assert_refused(done, 1, " for bad")
    assert files_below(tmp_path) == ["p.csv"]
