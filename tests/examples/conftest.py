"""Programs of examples/ are run as a user runs them, with `skinlesion` on the PATH."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.limits import HANG_S

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> dict[str, str]:
    """The environment of a shell in which this checkout is installed."""
    folder = tmp_path_factory.mktemp("bin")
    for name, arguments in (("skinlesion", " -m skinlesion_cli"), ("python3", "")):
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)}{arguments} "$@"\n')
        program.chmod(0o755)
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": paths,
        "COLUMNS": "200",
        "NO_COLOR": "1",
    }


@pytest.fixture(scope="session")
def program(environment):
    """Run a program of examples/ by its name; returns the finished process."""

    def run(name: str, *arguments: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        start = {".py": [sys.executable], ".sh": ["sh"], ".sbatch": ["bash"]}[Path(name).suffix]
        return subprocess.run(
            [*start, str(ROOT / "examples" / name), *map(str, arguments)],
            cwd=cwd,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=HANG_S,
        )

    return run


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """A finished workspace of one tiny network with random weights."""
    from tests.support import tiny_models

    return tiny_models.make_workspace(tmp_path_factory.mktemp("model") / "workspace", archs=("tiny",))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """8 generated images in two folders."""
    from tests.support import tiny_models

    return tiny_models.make_images(tmp_path_factory.mktemp("pictures") / "in", 8)
