"""Maps from the further outputs of an exported network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.explain.overlay_writer import overlay_writer
from skinlesion_cli.inference.predictor import Predictor
from skinlesion_cli.progress import SilentReporter
from tests.support.tiny_models import make_workspace


def test_maps_are_the_same_through_torch_and_onnxruntime(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: nothing can be exported")
    from skinlesion_cli.stages import export

    root = make_workspace(tmp_path / "ws", size_px=[64, 96])  # maps of 4 x 4 and 6 x 6 places
    export.run(export.ExportSettings(workspace=root), SilentReporter())
    bundle = Bundle.load(Workspace(root))
    images = [np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8) for seed in range(3)]
    ids = ["a.jpg", "b.jpg", "c.jpg"]
    maps = {}
    for runtime in ("torch", "onnx"):
        predictor = Predictor.of_bundle(bundle, device="cpu", runtime=runtime)
        engine = predictor.engine
        assert {member.runtime.name for member in engine.members} == {runtime}
        found = engine.run(images, keep_layers=True)
        writer = overlay_writer(tmp_path / runtime, predictor, raw="npz", classes=range(7))
        records = writer.write(
            ids, images, found.layers, found.probabilities.argmax(axis=1), found.probabilities
        )
        maps[runtime] = np.stack([np.load(tmp_path / runtime / record.raw)["map"] for record in records])
    assert maps["torch"].shape == (21, 6, 6)
    largest = maps["torch"].max()
    supporting = (maps["torch"].max(axis=(1, 2)) > largest / 10).sum()
    assert supporting >= 7, "too few maps are large enough to compare"
    np.testing.assert_allclose(maps["onnx"] / largest, maps["torch"] / largest, atol=1e-4, rtol=0)
