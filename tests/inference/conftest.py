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


@pytest.fixture(scope="session")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished model of a tiny network beside 330 generated images in three folds, after `gate`.

    `in` are the images, `ws` is the workspace, and `gate.json` what the command printed.
    """
    import make_images

    from tests.support import tiny_models
    from tests.support.command_line import run

    folder = tmp_path_factory.mktemp("gated")
    make_images.make(folder / "in", 330, seed=3, width=64, height=48, official=True)
    options = ("--split", "kfold", "--folds", 3, "-w", folder / "ws", "--quiet")
    assert run("download", "--from", folder / "in", *options).exit_code == 0
    tiny_models.make_workspace(folder / "ws", archs=("tiny",))
    done = run("gate", "-w", folder / "ws", "--json", "--quiet")
    assert done.exit_code == 0, done.output
    (folder / "gate.json").write_text(done.stdout)
    return folder
