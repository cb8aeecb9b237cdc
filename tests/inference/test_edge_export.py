"""What is handed to timmx, and what becomes of its refusals; timmx itself is not needed."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
import torch

from skinlesion_cli.config.schema import Preprocessing
from skinlesion_cli.errors import SkinLesionError, UsageError
from skinlesion_cli.models.backbones import backbone
from skinlesion_cli.models.edge_export import export_edge
from skinlesion_cli.models.network import LesionNet


class TimmxError(Exception):
    pass


@pytest.fixture
def network() -> LesionNet:
    return LesionNet(backbone("tiny"), Preprocessing(input_size_px=32), n_classes=7)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What `timmx.api.export_model` was called with; raises what was put first."""
    found: list[dict] = []

    def export_model(kind: str, model_name: str, /, **options: object) -> Path:
        weights = torch.load(str(options["checkpoint"]), weights_only=True)
        found.append({"kind": kind, "model_name": model_name, "weights": weights, **options})
        if refusals:
            raise TimmxError(refusals.pop())
        return Path(str(options["output"]))

    refusals: list[str] = []
    export_model.refusals = refusals  # type: ignore[attr-defined]
    api, errors = types.ModuleType("timmx.api"), types.ModuleType("timmx.errors")
    api.export_model, errors.TimmxError = export_model, TimmxError  # type: ignore[attr-defined]
    for name, module in (("timmx", types.ModuleType("timmx")), ("timmx.api", api), ("timmx.errors", errors)):
        monkeypatch.setitem(sys.modules, name, module)
    return found


@pytest.mark.parametrize("kind", ["openvino", "coreml", "litert", "executorch"])
def test_timmx_gets_the_weights_and_the_preprocessing(
    kind: str, network: LesionNet, calls: list[dict], tmp_path: Path
) -> None:
    export_edge(network, kind, 32, tmp_path / "edge" / "tiny.out")
    (call,) = calls
    assert (call["kind"], call["num_classes"], call["input_size"]) == (kind, 7, (3, 32, 32))
    assert call["model_name"] == network.spec.timm_name
    assert call["output"] == str(tmp_path / "edge" / "tiny.out")
    # ImageNet's, of pixels in [0, 1].
    assert call["mean"] == pytest.approx((0.485, 0.456, 0.406), abs=1e-6)
    assert call["std"] == pytest.approx((0.229, 0.224, 0.225), abs=1e-6)
    for name, tensor in network.backbone.state_dict().items():
        assert torch.equal(call["weights"][name], tensor)
    # Half precision would be another network than the one that was judged.
    assert call.get("fp16") is (False if kind == "openvino" else None)
    assert call.get("compute_precision") == ("float32" if kind == "coreml" else None)


def test_what_unknown_metadata_adds_is_in_the_last_bias(calls: list[dict], tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = LesionNet(backbone("tiny"), Preprocessing(input_size_px=32), n_classes=7, n_metadata=3).eval()
    export_edge(network, "litert", 32, tmp_path / "tiny.tflite")
    handed = LesionNet(backbone("tiny"), Preprocessing(input_size_px=32), n_classes=7).eval()
    handed.backbone.load_state_dict(calls[0]["weights"])
    pixels = torch.randint(0, 256, (2, 32, 32, 3), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(handed(pixels), network(pixels))
        unknown = network.metadata(torch.zeros(1, 3))  # type: ignore[misc]
    assert unknown.abs().max() > 1e-3


@pytest.mark.parametrize(
    ("refusal", "kind_of_error", "hint"),
    [
        ("Install openvino first.", UsageError, "pip install 'skinlesion[edge-openvino]'"),
        ("outputs differ by 0.3", SkinLesionError, "--format onnx"),
    ],
)
def test_what_timmx_refuses_is_told(
    refusal: str,
    kind_of_error: type[SkinLesionError],
    hint: str,
    network: LesionNet,
    calls: list[dict],
    tmp_path: Path,
) -> None:
    sys.modules["timmx.api"].export_model.refusals.append(refusal)
    with pytest.raises(SkinLesionError, match=refusal) as told:
        export_edge(network, "openvino", 32, tmp_path / "tiny.xml")
    assert type(told.value) is kind_of_error
    assert hint in told.value.hint


def test_without_timmx_it_says_what_to_install(
    network: LesionNet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "timmx", None)
    monkeypatch.setitem(sys.modules, "timmx.api", None)
    with pytest.raises(UsageError, match="timmx is not installed"):
        export_edge(network, "litert", 32, tmp_path / "tiny.tflite")
