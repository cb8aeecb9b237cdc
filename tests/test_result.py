"""How numbers are written for people."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import skinlesion_cli
from skinlesion_cli.result import counted, percent


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [(0.719, 1, "71.9 %"), (0.95, 0, "95 %"), (0.0104, 2, "1.04 %"), (0.0, 1, "0.0 %"), (1.0, 1, "100.0 %")],
)
def test_a_percentage_has_a_space(share: float, digits: int, text: str) -> None:
    assert percent(share, digits) == text


def test_nothing_else_formats_percentages() -> None:
    """The format `%` puts no space before the sign."""
    package = Path(skinlesion_cli.__file__).parent
    found = [
        f"{path.relative_to(package)}: {match}"
        for path in sorted(package.rglob("*.py"))
        for match in re.findall(r"\{[^{}]*:[^{}]*%\}", path.read_text("utf-8"))
    ]
    assert found == []


def test_a_count_has_its_noun() -> None:
    assert [counted(n, "image") for n in (0, 1, 1200)] == ["0 images", "1 image", "1,200 images"]
