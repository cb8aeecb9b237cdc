"""Workspaces that can predict or be evaluated, made without training."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support import made_workspace, tiny_models
from tests.support.command_line import run


@pytest.fixture(scope="session")
def tiny_workspace(tiny_model: Path) -> Path:
    """The ensemble of one tiny network that all tests share. To be read, not changed."""
    return tiny_model


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four generated images in two folders, 64 x 48 pixels."""
    return tiny_models.make_images(tmp_path_factory.mktemp("images") / "in", 4)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with made-up predictions of two networks, as `train` leaves it. To be copied,
    not changed.
    """
    root = tmp_path_factory.mktemp("trained") / "ws"
    made_workspace.make(root, n_lesions=200)
    return root


@pytest.fixture(scope="session")
def calibrated(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after `ensemble` and `calibrate`. To be copied, not changed."""
    root = tmp_path_factory.mktemp("calibrated") / "ws"
    shutil.copytree(trained, root)
    for command in ("ensemble", "calibrate"):
        done = run(command, "-w", root)
        assert done.exit_code == 0, done.output
    return root


@pytest.fixture
def own_trained(trained: Path, tmp_path: Path) -> Path:
    """A copy of `trained` that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "ws"))


@pytest.fixture
def own_calibrated(calibrated: Path, tmp_path: Path) -> Path:
    """A copy of `calibrated` that a test may change."""
    return Path(shutil.copytree(calibrated, tmp_path / "ws"))
