"""Formats for small devices: converted, run in their own interpreters, and the same as torch."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.edge_exports import EdgeExport
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.preprocess import to_input
from skinlesion_cli.data.reading.images import read_image
from skinlesion_cli.errors import ArtifactError, UsageError
from skinlesion_cli.inference.runtimes.base import softmax
from skinlesion_cli.inference.runtimes.torch import TorchRuntime
from skinlesion_cli.models.network import restore_network
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages import export
from tests.support.class_lists import ISIC2018

ROOT = Path(__file__).resolve().parents[2]
# What each format needs, and the files that it consists of.
PACKAGES = {
    "openvino": ("timmx", "openvino"),
    "litert": ("timmx", "litert_torch", "ai_edge_litert"),
    "executorch": ("timmx", "executorch"),
    "coreml": ("timmx", "coremltools"),
}
FILES = {
    "openvino": {"tiny-fold0.xml", "tiny-fold0.bin"},
    "litert": {"tiny-fold0.tflite"},
    "executorch": {"tiny-fold0.pte"},
    "coreml": {
        "tiny-fold0.mlpackage/Manifest.json",
        "tiny-fold0.mlpackage/Data/com.apple.CoreML/model.mlmodel",
        "tiny-fold0.mlpackage/Data/com.apple.CoreML/weights/weight.bin",
    },
}


def require(kind: str) -> None:
    """Skip a test of this format where its packages are not installed."""
    missing = [name for name in PACKAGES[kind] if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{kind}: {', '.join(missing)} not installed; see the extra edge-{kind}")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.support import tiny_models

    return tiny_models.make_workspace(tmp_path_factory.mktemp("edge") / "ws", archs=("tiny",))


def edge_folder(workspace: Path) -> Path:
    return workspace / "models" / "tiny-fold0" / "edge"


def exported(workspace: Path, kind: str):
    return export.run(export.ExportSettings(workspace=workspace, format=kind), SilentReporter())


@pytest.mark.parametrize("kind", PACKAGES)
def test_a_network_is_converted_and_gives_what_torch_gives(
    kind: str, workspace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    require(kind)
    result = exported(workspace, kind)
    assert capfd.readouterr().out == ""
    (figures,) = result.figures["networks"].values()
    card = EdgeExport.load(edge_folder(workspace) / f"tiny-fold0.{kind}.json")
    card.require_files()
    assert set(card.files) == FILES[kind]
    sizes = [(edge_folder(workspace) / name).stat().st_size for name in card.files]
    # 99,000 weights of four bytes, and no other copy of them.
    assert figures["size_bytes"] == sum(sizes)
    assert 390_000 < sum(sizes) < 500_000
    if kind == "coreml" and sys.platform != "darwin":
        assert "not compared with torch" in result.headline[0]
        assert card.figures == {}
        return
    assert (figures["images"], figures["same_argmax"]) == (16, 1.0)
    assert figures["largest_difference"] < 1e-6
    assert card.figures["largest_difference"] == figures["largest_difference"]


def test_a_changed_file_is_noticed(workspace: Path) -> None:
    model = workspace / "other.tflite"
    model.write_bytes(b"network")
    checkpoint = Checkpoint.load(Workspace(workspace).checkpoint("tiny-fold0"))
    made = EdgeExport.of_files("litert", model, {}, checkpoint.preprocessing)
    assert made.files == {"other.tflite": hashlib.sha256(b"network").hexdigest()}
    made.save(workspace / "other.json")
    EdgeExport.load(workspace / "other.json").require_files()
    model.write_bytes(b"another network")
    with pytest.raises(ArtifactError, match=r"other\.tflite is missing or is not the file"):
        EdgeExport.load(workspace / "other.json").require_files()


class OneLogitOff:
    """An interpreter whose first logit is wrong by 0.01."""

    def __init__(self, path: Path, _kind: str) -> None:
        assert path.read_bytes() == b"converted"
        workspace = path.parents[3]
        self.network = TorchRuntime(
            restore_network(Checkpoint.load(Workspace(workspace.parent).checkpoint("tiny-fold0")))
        )

    def logits(self, images: np.ndarray) -> np.ndarray:
        return self.network.logits(images) + np.float32([0.01, 0, 0, 0, 0, 0, 0])


def test_a_network_that_changed_on_the_way_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from skinlesion_cli.inference import edge_exporting
    from skinlesion_cli.models import edge_export
    from tests.support import tiny_models

    workspace = tiny_models.make_workspace(tmp_path / "ws", archs=("tiny",), spread=0.05)
    monkeypatch.setattr(edge_exporting, "EdgeRuntime", OneLogitOff)
    monkeypatch.setattr(
        edge_export, "export_edge", lambda _network, _kind, _size_px, target: target.write_bytes(b"converted")
    )
    with pytest.raises(ArtifactError, match="tiny-fold0 is refused: a probability differs by"):
        exported(workspace, "litert")
    assert list(edge_folder(workspace).iterdir()) == []


def test_a_missing_package_names_the_extra(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timmx", None)
    monkeypatch.setitem(sys.modules, "timmx.api", None)
    with pytest.raises(UsageError) as refusal:
        exported(workspace, "executorch")
    assert "skinlesion[edge-executorch]" in refusal.value.hint


def test_the_example_predicts_without_torch_what_torch_predicts(workspace: Path, images: Path) -> None:
    require("litert")
    exported(workspace, "litert")
    files = sorted(images.rglob("*.jpg"))[:8]
    done = subprocess.run(
        [
            *(sys.executable, "-X", "importtime", ROOT / "examples" / "edge_predict.py"),
            *(edge_folder(workspace) / "tiny-fold0.tflite", *files),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "ai_edge_litert" in loaded
    assert loaded.isdisjoint({"torch", "skinlesion_cli", "timm", "onnxruntime"})
    checkpoint = Checkpoint.load(Workspace(workspace).checkpoint("tiny-fold0"))
    network = TorchRuntime(restore_network(checkpoint))
    for line, file in zip(done.stdout.splitlines(), files, strict=True):
        values = softmax(network.logits(to_input(read_image(file), checkpoint.preprocessing)[None]))[0]
        first = int(values.argmax())
        assert line == f"{file}: {ISIC2018.codes[first]} {values[first]:.4f}"


def test_the_table_of_formats(
    images: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    require("openvino")
    import edge_formats

    monkeypatch.setattr(
        "sys.argv",
        [
            *("edge_formats.py", str(images), "--images", "5"),
            *("--model", str(workspace), "--format", "openvino"),
        ],
    )
    edge_formats.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tiny-fold0 at 32 px, 5 images"
    (row,) = (line for line in lines if line.startswith("| openvino"))
    assert row.split("|")[5].strip() == "1.000"
    assert float(row.split("|")[6]) < 1e-6
