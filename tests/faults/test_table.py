"""The table of faults names tests that exist, and every fault has one at the command line."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
MARK = "pytest.mark.command_line"
# How a file of tests reaches the command, in this process or in one of its own.
REACHES = re.compile(
    r"from tests\.support\.command_line import .*\brun\b|skinlesion_cli\.cli\.app "
    r"import|\bskinlesion\(|kill_resume\.train_killed"
)
LINES = [
    line.strip("| \n").split(" | ")
    for line in (TESTS / "faults" / "FAULTS.md").read_text("utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| Input")
]


def defined_in(source: str) -> dict[str, bool]:
    """The tests that a file defines, and whether each runs the command."""
    tree = ast.parse(source)
    reaches = REACHES.search(source) is not None
    all_of_it = any(isinstance(node, ast.Assign) and ast.unparse(node.value) == MARK for node in tree.body)
    return {
        node.name: reaches and (all_of_it or MARK in map(ast.unparse, node.decorator_list))
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


AT_COMMAND_LINE = {
    name: marked
    for path in TESTS.rglob("test_*.py")
    for name, marked in defined_in(path.read_text("utf-8")).items()
}


def named(text: str) -> list[str]:
    return re.findall(r"`(test_\w+)`", text)


def test_the_table_is_read() -> None:
    assert LINES
    assert {len(line) for line in LINES} == {3}


@pytest.mark.parametrize("line", LINES, ids=[line[0] for line in LINES])
def test_every_fault_has_a_test_at_the_command_line(line: list[str]) -> None:
    commands, _, functions = line[2].partition(";")
    assert named(commands)
    assert [name for name in named(line[2]) if name not in AT_COMMAND_LINE] == []
    assert [name for name in named(commands) if not AT_COMMAND_LINE[name]] == []
    assert [name for name in named(functions) if AT_COMMAND_LINE[name]] == []


def test_what_counts_as_a_test_at_the_command_line() -> None:
    reaching = "from tests.support.command_line import run\n"
    test = "def test_a(): pass\n"
    assert defined_in(test) == {"test_a": False}
    assert defined_in(reaching + test) == {"test_a": False}
    assert defined_in(f"@{MARK}\n{test}") == {"test_a": False}
    assert defined_in(f"{reaching}@{MARK}\n{test}") == {"test_a": True}
    assert defined_in(f"{reaching}pytestmark = {MARK}\n{test}") == {"test_a": True}
