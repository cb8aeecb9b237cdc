"""Workspaces for every stage of the work, and the commands in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from skinlesion_cli.cli.app import app

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
Run = Callable[..., Any]


@pytest.fixture(scope="session")
def run() -> Run:
    """Run a command in this process; stdout and stderr apart."""

    def invoke(*arguments: object) -> Any:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return invoke


@dataclass(frozen=True)
class Places:
    """`generated`: images in the official layout. `dataset`: a workspace with them. `finished`: one that
    predicts, without a dataset. `stored`: one with predictions, an ensemble and a calibration,
    without networks.
    """

    generated: Path
    dataset: Path
    finished: Path
    stored: Path
    images: Path


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Places:
    import make_images

    from tests.support import made_workspace, tiny_models

    root = tmp_path_factory.mktemp("places")
    # Enough images for a gate, and no more.
    make_images.make(root / "generated", 360, seed=3, width=64, height=48, official=True)
    dataset, stored = root / "dataset", made_workspace.make(root / "stored", n_lesions=200).root
    for arguments in (
        ("download", "--from", root / "generated", "--split", "grouped", "-w", dataset),
        ("ensemble", "-w", stored),
        ("calibrate", "--policy", "published", "-w", stored),
    ):
        done = run(*arguments)
        assert done.exit_code == 0, done.output
    finished = tiny_models.make_workspace(root / "finished", archs=("tiny",))
    return Places(root / "generated", dataset, finished, stored, tiny_models.make_images(root / "images", 4))
