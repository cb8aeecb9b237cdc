"""Class codes stand in class lists and in readers of published formats, and nowhere else in code."""

from __future__ import annotations

import ast
from pathlib import Path

import skinlesion_cli
from skinlesion_cli.taxonomy.shipped import SHIPPED, shipped

PACKAGE = Path(skinlesion_cli.__file__).parent
CODES = {code for name in SHIPPED for code in shipped(name).codes}
# The lists themselves, readers of published formats, and two things that are published with their classes.
ALLOWED = (
    "taxonomy/",
    "data/sources/",
    "data/training/augmentation.py",
    "decisions/policies/published.py",
)


def codes_in(source: str) -> list[str]:
    """Class codes that are text of their own in Python code; docstrings, help and examples are longer."""
    return [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in CODES
    ]


def test_the_search_finds_a_code() -> None:
    assert codes_in('"""Of MEL."""\nlabels["MEL"] = f"{x} MEL", ("NV",)') == ["MEL", "NV"]


def test_no_code_outside_of_lists_and_published_formats() -> None:
    found = {
        name: codes
        for path in sorted(PACKAGE.rglob("*.py"))
        if not (name := path.relative_to(PACKAGE).as_posix()).startswith(ALLOWED)
        if (codes := codes_in(path.read_text("utf-8")))
    }
    assert found == {}
