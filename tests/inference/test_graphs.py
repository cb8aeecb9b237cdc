"""ONNX graphs that take their weights from the network's own safetensors file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from skinlesion_cli.artifacts import exports
from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.errors import ArtifactError
from skinlesion_cli.inference.runtimes.exported import exported_runtime
from skinlesion_cli.inference.runtimes.registry import RUNTIMES
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages import pack

PIXELS = np.random.default_rng(3).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def checkpoint(tiny_workspace: Path) -> Checkpoint:
    workspace = Workspace(tiny_workspace)
    return Checkpoint.load(workspace.checkpoint(workspace.trained()[0]))


def half(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """The same network stored in half precision, elsewhere."""
    from skinlesion_cli.models.network import to_half_precision

    stored = replace(checkpoint, weights=to_half_precision(checkpoint.weights), artifact=None)
    stored.save(folder / "checkpoint.json")
    return Checkpoint.load(folder / "checkpoint.json")


def torch_logits(checkpoint: Checkpoint) -> np.ndarray:
    return RUNTIMES["torch"].member(checkpoint, 1.0, "cpu").runtime.logits(PIXELS)


def test_a_graph_holds_no_weights_and_any_onnx_runtime_reads_it_beside_them(checkpoint: Checkpoint) -> None:
    import onnxruntime

    export = exports.Export.load_for(checkpoint, "onnx")
    assert len(export.model) < len(checkpoint.weights) / 2
    state = load_tensors(checkpoint.weights)
    taken = sum(state[name].nbytes for name in export.weights)
    assert taken == sum(t.nbytes for n, t in state.items() if "num_batches" not in n)
    assert export.artifact is not None
    assert list(export.artifact.payloads) == ["graph"]
    session = onnxruntime.InferenceSession(str(export.artifact.payloads["graph"]))
    assert [output.name for output in session.get_outputs()][:2] == ["logits", "features"]
    (logits,) = session.run(["logits"], {"pixels": PIXELS})
    np.testing.assert_allclose(logits, torch_logits(checkpoint), atol=1e-4)


def test_half_precision_is_computed_in_float32(checkpoint: Checkpoint, tmp_path: Path) -> None:
    from skinlesion_cli.inference.exporting import graph_of

    stored = half(checkpoint, tmp_path / "models" / "tiny")
    export = graph_of(stored, Workspace(tmp_path), SilentReporter())
    assert export.figures["images_are"] == "generated images"
    assert export.figures["largest_difference"] <= 1e-5
    kinds = {value.dtype.name for value in export.weights.values()}
    assert kinds == {"float16", "float32"}
    found = exported_runtime(export.model, "onnx", export.weights).logits(PIXELS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, torch_logits(stored), atol=1e-4)
    # The graph is the same for other weights of the same network.
    doubled = {n: 2 * v if n == export.classifier_name else v for n, v in export.weights.items()}
    other = exported_runtime(export.model, "onnx", doubled).logits(PIXELS)
    bias = load_tensors(stored.weights)[export.classifier_name.replace("weight", "bias")]
    np.testing.assert_allclose(other - bias, 2 * (found - bias), atol=1e-3)


def test_weights_that_are_not_finite_or_not_there_are_named(checkpoint: Checkpoint, tmp_path: Path) -> None:
    export = exports.Export.load_for(checkpoint, "onnx")
    names = [*export.weights, export.classifier_name]
    tensors = load_tensors(checkpoint.weights)
    broken = {name: tensor.copy() for name, tensor in tensors.items()}
    broken[export.classifier_name][0, 0] = np.nan
    with pytest.raises(ArtifactError, match=f"NaN or infinity: {export.classifier_name}"):
        replace(checkpoint, weights=save_tensors(broken)).tensors(names)
    del tensors[export.classifier_name]
    with pytest.raises(ArtifactError, match=f"no tensor '{export.classifier_name}'"):
        replace(checkpoint, weights=save_tensors(tensors)).tensors(names)


def test_a_packed_model_has_its_graphs_and_needs_no_torch(tiny_workspace: Path, tmp_path: Path) -> None:
    settings = pack.PackSettings(workspace=tiny_workspace, output=tmp_path / "packed")
    done = pack.run(settings, SilentReporter())
    packed = Workspace(tmp_path / "packed")
    for name in packed.trained():
        checkpoint = Checkpoint.load(packed.checkpoint(name))
        export = exports.Export.load_for(checkpoint, "onnx")
        assert export.artifact is not None
        assert export.artifact.path == packed.model(name) / "onnx.json"
        assert export.figures["largest_difference"] <= 1e-5
    assert done.figures["bytes"] == sum(p.stat().st_size for p in packed.root.rglob("*") if p.is_file())
    assert Bundle.load(packed).sha256 == done.figures["model_sha256"]


def test_a_graph_of_an_earlier_version_with_its_weights_inside_is_read(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    from skinlesion_cli.models.network import restore_network
    from skinlesion_cli.models.onnx_export import to_onnx

    checkpoint.save(tmp_path / "checkpoint.json")
    again = Checkpoint.load(tmp_path / "checkpoint.json")
    network = restore_network(again)
    classifier = network.classifier.weight.detach().numpy()
    whole = exports.Export("onnx", to_onnx(network, 32), classifier, {}).save_for(again)
    # Where it was then, and without what has been added to the schema.
    (tmp_path / "onnx").mkdir()
    for file in tmp_path.glob("onnx.*"):
        file.rename(tmp_path / "onnx" / file.name)
    assert not whole.path.exists()
    stated = json.loads((tmp_path / "onnx" / "onnx.json").read_text())
    assert set(stated["payloads"]) == {"model", "classifier"}
    assert set(stated["body"]) == {"format", "figures"}
    member = RUNTIMES["onnx"].member(again, 1.0, "cpu")
    np.testing.assert_allclose(member.runtime.logits(PIXELS), torch_logits(again), atol=1e-4)
    np.testing.assert_array_equal(member.classifier, classifier)
