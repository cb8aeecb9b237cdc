"""Exports of models that are not the workspace's own: in the user's cache, verified,
and found by themselves.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages import pack

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")


def everything(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*"))


def largest_difference(one: Path, other: Path) -> float:
    pairs = []
    for path in (one, other):
        with path.open(newline="") as file:
            pairs.append([float(row[f"p_{name}"]) for row in csv.DictReader(file) for name in NAMES])
    return max(abs(a - b) for a, b in zip(*pairs, strict=True))


@pytest.fixture
def packed(tiny_workspace: Path, tmp_path: Path) -> Path:
    """A model as earlier versions packed it: without the graphs of its networks."""
    pack.run(pack.PackSettings(workspace=tiny_workspace, output=tmp_path / "packed"), SilentReporter())
    for graph in (tmp_path / "packed").glob("models/*/onnx*"):
        graph.unlink()
    return tmp_path / "packed"


@pytest.fixture
def needs_onnx() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed: nothing can be exported")


@pytest.mark.usefixtures("needs_onnx")
def test_a_packed_model_is_exported_into_the_cache_and_predicts_from_there(
    skinlesion, packed: Path, images: Path, tmp_path: Path
) -> None:
    own = {"SKINLESION_CACHE": str(tmp_path / "cache")}
    before = everything(packed)
    predict = ("predict", images, "--model", packed)
    first = skinlesion(*predict, "-o", tmp_path / "torch.csv", **own)
    assert first.returncode == 0, first.stderr
    told = [line for line in first.stderr.splitlines() if "skinlesion export" in line]
    assert told == [
        f"predicting with torch; run `skinlesion export --model {packed}` once, "
        "and onnxruntime predicts much faster"
    ]
    assert not (tmp_path / "cache").exists()

    exported = skinlesion("export", "--model", packed, "--json", cwd=tmp_path, **own)
    assert exported.returncode == 0, exported.stderr
    result = json.loads(exported.stdout)
    assert {n["images_are"] for n in result["figures"]["networks"].values()} == {"generated images"}
    assert all(n["largest_difference"] <= 1e-5 for n in result["figures"]["networks"].values())
    written = [Path(name) for name in result["artifacts"]]
    assert [path.parent.parent for path in written] == [tmp_path / "cache" / "exports"] * 2
    assert all(len(path.parent.name) == 64 and path.name == "onnx.json" for path in written)
    assert everything(packed) == before
    assert not (tmp_path / "skinlesion-workspace").exists()

    second = skinlesion(*predict, "-o", tmp_path / "onnx.csv", **own)
    assert second.returncode == 0, second.stderr
    assert "runtime: onnx" in second.stderr
    assert "skinlesion export" not in second.stderr
    assert largest_difference(tmp_path / "torch.csv", tmp_path / "onnx.csv") <= 1e-5

    (model,) = written[0].parent.glob("*.onnx")
    model.write_bytes(model.read_bytes()[:-1] + b"!")
    altered = skinlesion(*predict, "-o", tmp_path / "altered.csv", **own)
    assert altered.returncode == 4
    assert "is damaged" in altered.stderr
    assert not (tmp_path / "altered.csv").exists()


@pytest.mark.usefixtures("needs_onnx")
def test_the_bundled_model_runs_with_onnxruntime_as_it_comes(skinlesion, tmp_path: Path) -> None:
    own = {"SKINLESION_CACHE": str(tmp_path / "cache")}
    package = ROOT / "skinlesion_cli" / "bundled"
    before = [path for path in everything(package) if "__pycache__" not in path.parts]
    predict = ("predict", ROOT / "examples" / "images" / "GEN_0000000.jpg", "-q")
    done = skinlesion(*predict, "-o", "torch.csv", "--runtime", "torch", cwd=tmp_path, **own)
    assert done.returncode == 0, done.stderr
    done = skinlesion(*predict, "-o", "onnx.csv", "--json", "--model", "builtin", cwd=tmp_path, **own)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["figures"]["runtime"] == "onnx"
    assert largest_difference(tmp_path / "torch.csv", tmp_path / "onnx.csv") <= 1e-5
    assert [path for path in everything(package) if "__pycache__" not in path.parts] == before


def test_what_cannot_be_measured_is_not_exported(skinlesion, packed: Path, tmp_path: Path) -> None:
    own = {"SKINLESION_CACHE": str(tmp_path / "cache")}
    done = skinlesion("export", "--model", packed, "--format", "onnx-int8", **own)
    assert done.returncode == 2
    assert "this model came without them" in done.stderr
    assert "Use --format onnx." in done.stderr
    unknown = skinlesion("export", "--model", packed, "--member", "resnet50", **own)
    assert unknown.returncode == 2
    assert "not trained in this model: resnet50" in unknown.stderr
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("needs_onnx")
def test_a_cache_that_cannot_be_written_is_a_clear_error(skinlesion, packed: Path) -> None:
    done = skinlesion("export", "--model", packed, SKINLESION_CACHE="/proc/nothing")
    assert done.returncode == 1
    assert "cannot write in /proc/nothing/exports" in done.stderr
    assert "should not happen" not in done.stderr
