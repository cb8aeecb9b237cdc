"""A workspace that can predict, made without training."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


def _tiny() -> ModuleType:
    path = Path(__file__).resolve().parents[1] / "inference" / "tiny.py"
    specification = importlib.util.spec_from_file_location("tiny_workspaces", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished ensemble of one tiny network with random weights."""
    return _tiny().make_workspace(tmp_path_factory.mktemp("tiny") / "ws", archs=("tiny",))


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four generated images in two folders, 64 x 48 pixels."""
    return _tiny().make_images(tmp_path_factory.mktemp("images") / "in", 4)
