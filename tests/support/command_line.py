"""The command as a user types it, in this process, and what tests look at afterwards."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from skinlesion_cli.cli.app import app
from tests.support.class_lists import ISIC2018


def run(*arguments: object) -> Result:
    """Run `skinlesion` with these arguments; `output` has stdout and stderr as a terminal shows them."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def assert_refused(done: Result, exit_code: int, *words: str) -> None:
    """It ended with this code and one message that has these words, and not by a fault of its own."""
    assert done.exit_code == exit_code, done.output
    assert isinstance(done.exception, SystemExit), done.exception
    assert "error: " in done.output
    assert "should not happen" not in done.output, done.output
    assert "Traceback" not in done.output
    for word in words:
        assert word in done.output, done.output


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a table of predictions by id."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    by_id = {row["id"]: row for row in rows}
    assert len(by_id) == len(rows)
    return by_id


def probabilities(row: dict[str, str]) -> tuple[str, ...]:
    """The seven probabilities as they were written."""
    return tuple(row[f"p_{name}"] for name in ISIC2018.codes)


def files_below(folder: Path) -> list[str]:
    """What a user sees below a folder; locks and other hidden files left out."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    return sorted(path.as_posix() for path in found if not path.name.startswith("."))


def contents(folder: Path) -> dict[str, bytes]:
    """The content of every file below a folder that a user sees."""
    return {name: (folder / name).read_bytes() for name in files_below(folder)}


@contextmanager
def room_for(size_bytes: int) -> Iterator[None]:
    """No file of this process grows beyond so many bytes: the system refuses the write in its middle."""
    resource = pytest.importorskip("resource")

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
