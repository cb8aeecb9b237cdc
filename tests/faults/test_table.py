"""The table of faults names tests that exist, and every fault has one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from skinlesion_cli.cli.app import app

TESTS = Path(__file__).resolve().parents[1]
LINES = [
    line.strip("| \n").split(" | ")
    for line in (TESTS / "faults" / "FAULTS.md").read_text("utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| Input")
]
DEFINED = {
    node.name
    for path in TESTS.rglob("test_*.py")
    for node in ast.walk(ast.parse(path.read_text("utf-8")))
    if isinstance(node, ast.FunctionDef)
}


def test_the_table_is_read() -> None:
    assert len(LINES) == 30
    assert {len(line) for line in LINES} == {3}


@pytest.mark.parametrize("line", LINES, ids=[line[0] for line in LINES])
def test_every_fault_has_a_test(line: list[str]) -> None:
    named = re.findall(r"`(test_\w+)`", line[2])
    assert named
    assert [name for name in named if name not in DEFINED] == []


def test_a_device_that_is_not_there_is_a_clear_error(
    tiny_workspace: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    output = tmp_path / "all.csv"
    done = CliRunner().invoke(
        app, ["predict", str(images), "-o", str(output), "--device", "cuda", "-w", str(tiny_workspace)]
    )
    assert done.exit_code == 1, done.output
    assert "cuda" in done.output.lower()
    assert "should not happen" not in done.output
    assert not output.exists()
