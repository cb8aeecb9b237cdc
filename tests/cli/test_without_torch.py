"""What never loads torch: everything that predicts with networks that have ONNX graphs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.limits import HANG_S

ROOT = Path(__file__).resolve().parents[2]
IMAGE = ROOT / "examples" / "images" / "GEN_0000000.jpg"
pytestmark = [pytest.mark.slow, pytest.mark.command_line]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model as a workspace's own, which `select` needs."""
    from skinlesion_cli.artifacts.bundle import Bundle, bundled_model, copy_model
    from skinlesion_cli.artifacts.workspace import Workspace

    root = tmp_path_factory.mktemp("own") / "ws"
    copy_model(bundled_model(), Workspace(root), Bundle.load(bundled_model()))
    return root


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", IMAGE, "-o", "out.csv", "--report"),
        ("explain", IMAGE, "-o", "maps"),
        ("select", IMAGE, "-o", "list.csv"),
        ("doctor",),
    ],
    ids=lambda arguments: arguments[0],
)
def test_torch_is_never_loaded(arguments: tuple[object, ...], workspace: Path, tmp_path: Path) -> None:
    """Nor pandas, where only rows are predicted: it takes longer to load than onnxruntime."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "support" / "modules_after.py", *map(str, arguments)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        env=os.environ | {"PYTHONPATH": str(ROOT), "SKINLESION_WORKSPACE": str(workspace)},
    )
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.splitlines()[-1].removeprefix("loaded:").split()
    allowed = set() if arguments[0] == "predict" else {"pandas"}
    assert set(loaded) <= allowed, done.stdout
