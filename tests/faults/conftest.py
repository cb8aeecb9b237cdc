"""Workspaces that can predict or be evaluated, made without training."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from command_line import run

TESTS = Path(__file__).resolve().parents[1]


def load(path: str) -> ModuleType:
    """A helper module of another folder of tests."""
    specification = importlib.util.spec_from_file_location(f"of_{Path(path).stem}", TESTS / path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished ensemble of one tiny network with random weights."""
    return load("inference/tiny.py").make_workspace(tmp_path_factory.mktemp("tiny") / "ws", archs=("tiny",))


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four generated images in two folders, 64 x 48 pixels."""
    return load("inference/tiny.py").make_images(tmp_path_factory.mktemp("images") / "in", 4)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with made-up predictions of two networks, as `train` leaves it. To be copied, not changed."""
    root = tmp_path_factory.mktemp("trained") / "ws"
    load("stages/made_workspace.py").make(root, n_lesions=200)
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
