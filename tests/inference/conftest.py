"""A finished ensemble of two tiny networks with random weights: enough to predict, too little to learn."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.support import tiny_models

    workspace = tiny_models.make_workspace(tmp_path_factory.mktemp("tiny") / "ws")
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        return workspace  # everything is then tested with torch
    from skinlesion_cli.progress import SilentReporter
    from skinlesion_cli.stages import export

    export.run(export.ExportSettings(workspace=workspace), SilentReporter())
    return workspace


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 generated images in two folders, 64 x 48 pixels."""
    from tests.support import tiny_models

    return tiny_models.make_images(tmp_path_factory.mktemp("images") / "in", 40)
