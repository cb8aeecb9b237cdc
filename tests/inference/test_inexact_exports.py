"""Exports in fewer bits: measured on validation images before they are accepted, never taken unasked."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from skinlesion_cli.errors import ArtifactError, UsageError
from skinlesion_cli.progress import SilentReporter


def _can_run(kind: str) -> bool:
    if importlib.util.find_spec("onnxscript") is None:
        return False
    if kind == "onnx-int8":
        return importlib.util.find_spec("onnxruntime") is not None
    if importlib.util.find_spec("openvino") is None:
        return False
    from skinlesion_cli.inference.runtimes.openvino import has_bfloat16

    return has_bfloat16()


@pytest.fixture(params=["onnx-int8", "openvino-bf16"])
def kind(request: pytest.FixtureRequest) -> str:
    if not _can_run(request.param):
        pytest.skip(
            f"{request.param}: its packages, or the arithmetic that it needs, are not on this machine"
        )
    return request.param


@pytest.fixture(scope="module")
def workspace(trained_folder, tmp_path_factory) -> Path:
    """A folder with a finished workspace, made by the commands themselves."""
    return Path(shutil.copytree(trained_folder, tmp_path_factory.mktemp("inexact") / "folder"))


def _probabilities(path: Path) -> np.ndarray:
    with path.open(newline="", encoding="utf-8") as file:
        return np.array([[float(row["p_MEL"]), float(row["p_NV"])] for row in csv.DictReader(file)])


def test_an_export_in_fewer_bits_is_measured_and_predicts_nearly_the_same(
    skinlesion, workspace, generated, kind
):
    done = skinlesion("export", "--format", kind, "--max-bacc-drop", 0.2, "--json", cwd=workspace)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    figures = told["figures"]["networks"]["tiny"]
    assert figures["images_are"] == "validation images"
    assert figures["images"] == 20
    # Fewer bits always show, and a network that was not damaged by them says about the same.
    assert 1e-7 < figures["largest_difference"] < 0.1
    assert figures["bacc_torch"] - figures["bacc_export"] <= 0.2
    assert told["next"] == f"skinlesion predict ./images --runtime {kind}"
    images = sorted(generated.rglob("*.jpg"))[:6]
    for runtime in ("torch", kind):
        done = skinlesion("predict", *images, "-o", f"{runtime}.csv", "--runtime", runtime, cwd=workspace)
        assert done.returncode == 0, done.stderr
        assert f"runtime: {runtime}" in done.stderr
    exact, found = (_probabilities(workspace / f"{name}.csv") for name in ("torch", kind))
    assert found == pytest.approx(exact, abs=0.1)
    assert not np.array_equal(found, exact)


def test_an_export_that_loses_too_much_is_refused_and_not_written(workspace, monkeypatch, kind):
    from skinlesion_cli.inference import exporting
    from skinlesion_cli.stages import export

    root = workspace / "skinlesion-workspace"
    before = sorted((root / "models" / "tiny").rglob("*"))
    # The tiny network has learnt next to nothing that an export could lose.
    told = iter([0.8, 0.75])
    monkeypatch.setattr(exporting.metrics, "balanced_accuracy", lambda labels, said: next(told))
    with pytest.raises(ArtifactError, match=r"its balanced accuracy is 0\.7500 instead of 0\.8000"):
        export.run(export.ExportSettings(workspace=root, format=kind, max_bacc_drop=0.01), SilentReporter())
    assert [path for path in sorted((root / "models" / "tiny").rglob("*")) if path.suffix != ".lock"] == [
        path for path in before if path.suffix != ".lock"
    ]


def test_without_validation_images_there_is_no_export_in_fewer_bits(tiny_workspace, kind):
    from skinlesion_cli.stages import export

    with pytest.raises(UsageError, match=f"{kind} needs the images"):
        export.run(export.ExportSettings(workspace=tiny_workspace, format=kind), SilentReporter())


def test_a_processor_without_bfloat16_is_told_not_computed_in_float32(monkeypatch):
    pytest.importorskip("openvino")
    from skinlesion_cli.inference.runtimes import openvino as openvino_runtime

    monkeypatch.setattr(openvino_runtime, "has_bfloat16", lambda: False)
    with pytest.raises(UsageError, match="no bfloat16 arithmetic"):
        openvino_runtime.OpenVinoRuntime(b"")


@pytest.mark.parametrize(
    ("kind", "package", "wanted"),
    [("openvino-bf16", "openvino", "'skinlesion[openvino]'"), ("onnx", "onnxruntime", "onnxruntime")],
)
def test_a_runtime_that_is_not_installed_says_what_to_install(kind, package, wanted, monkeypatch):
    from skinlesion_cli.inference.runtimes.exported import exported_runtime

    monkeypatch.setitem(sys.modules, package, None)  # importing it then fails as if it were not there
    with pytest.raises(UsageError, match=f"{package} is not installed") as told:
        exported_runtime(b"", kind)
    assert told.value.hint == f"Run `pip install {wanted}`."


def test_the_maps_of_bfloat16_are_those_of_float32_nearly():
    if not _can_run("openvino-bf16"):
        pytest.skip("openvino, onnxscript or bfloat16 arithmetic is not on this machine")
    import torch

    from skinlesion_cli.config.schema import Preprocessing
    from skinlesion_cli.inference.runtimes.openvino import OpenVinoRuntime, SignalStack
    from skinlesion_cli.inference.runtimes.torch import TorchRuntime
    from skinlesion_cli.models.backbones import backbone
    from skinlesion_cli.models.network import LesionNet
    from skinlesion_cli.models.onnx_export import to_onnx

    torch.manual_seed(0)
    network = LesionNet(backbone("tiny"), Preprocessing(input_size_px=32), n_classes=7).eval()
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    exact = TorchRuntime(network, singly=True).logits_and_features(images)
    before = SignalStack.current()
    runtime = OpenVinoRuntime(to_onnx(network, 32))
    found = runtime.logits_and_features(images)
    after = SignalStack.current()
    # Left with OpenVINO's own, which it frees, the next signal would end the process.
    assert before is None or after is None or before.address == after.address
    for one, other in zip(exact, found, strict=True):
        assert one.shape == other.shape
        assert other.dtype == np.float32
        # 8 bits: half a percent of the largest value and a few roundings on the way.
        assert np.abs(one - other).max() < 0.05 * np.abs(one).max()
