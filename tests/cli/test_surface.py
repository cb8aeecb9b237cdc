"""How the commands look: narrow terminals, colours, and the options that all of them have."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table as RichTable

from skinlesion_cli.cli.narrow import drawn
from skinlesion_cli.result import Table
from tests.cli.conftest import COMMANDS, Run
from tests.conftest import ROOT
from tests.support.limits import HANG_S

COLOUR = re.compile(r"\x1b\[[0-9;]*(?:3[0-7]|9[0-7]|38;)[0-9;]*m")


@pytest.mark.parametrize("option", ["--json", "--quiet", "--debug", "--help"])
def test_every_command_has_it(option: str) -> None:
    import typer.main

    from skinlesion_cli.cli.app import app

    context = typer.main.get_command(app).make_context("skinlesion", [], resilient_parsing=True)
    without = [
        name
        for name, command in COMMANDS.items()
        if not any(option in parameter.opts for parameter in command.get_params(context))
    ]
    assert without == []


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("name", ["", *sorted(COMMANDS)])
def test_help_fits_and_cuts_no_name(
    name: str, columns: int, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERMINAL_WIDTH", str(columns))
    done = run(*filter(None, [name]), "--help")
    assert done.exit_code == 0
    assert [line for line in done.stdout.splitlines() if len(line.rstrip()) > columns] == []
    names = [option for parameter in COMMANDS[name].params for option in parameter.opts] if name else COMMANDS
    shown = set(re.findall(r"[\w-]+", done.stdout))
    assert [option for option in names if option.startswith("-") and option not in shown] == []
    assert [option for option in names if not option.startswith("-") and option not in shown] == []
    assert "…" not in done.stdout
    assert "[bold]" not in done.stdout
    assert "[cyan]" not in done.stdout


TABLE = Table(
    "By class",
    ("class", "images / lesions", "sensitivity", "specificity", "what it means"),
    [
        ("MEL", "15 / 10", "0.73 (0.57 to 1.00)", "0.96 (0.91 to 0.99)", "melanoma"),
        ("NV", "15 / 10", "undefined", "1.00 (1.00 to 1.00)", ""),
    ],
)


def shown(table: Table, width: int) -> list[str]:
    """Lines of a table, without its borders."""
    console = Console(file=io.StringIO(), width=width, highlight=False)
    picture = drawn(table, console)
    if isinstance(picture, RichTable):
        picture.box = None
    console.print(picture)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_a_table_that_does_not_fit_becomes_a_list() -> None:
    assert shown(TABLE, 40) == [
        "By class",
        "MEL",
        "  images / lesions: 15 / 10",
        "  sensitivity: 0.73 (0.57 to 1.00)",
        "  specificity: 0.96 (0.91 to 0.99)",
        "  what it means: melanoma",
        "NV",
        "  images / lesions: 15 / 10",
        "  sensitivity: undefined",
        "  specificity: 1.00 (1.00 to 1.00)",
    ]


def test_a_table_that_fits_has_figures_on_the_right_and_words_on_the_left() -> None:
    picture = drawn(TABLE, Console(file=io.StringIO(), width=100))
    assert isinstance(picture, RichTable)
    assert [column.justify for column in picture.columns] == ["left", "right", "right", "right", "left"]
    lines = shown(TABLE, 100)
    assert max(map(len, lines)) <= 100
    assert lines[2].split() == [
        "MEL",
        "15",
        "/",
        "10",
        "0.73",
        "(0.57",
        "to",
        "1.00)",
        "0.96",
        "(0.91",
        "to",
        "0.99)",
        "melanoma",
    ]


@pytest.mark.parametrize("width", [40, 80])
def test_no_cell_of_a_table_is_lost(width: int) -> None:
    long = "a-file-name-without-any-space-that-is-longer-than-the-terminal-is-wide-by-far.jpg"
    lines = shown(Table("T", ("file", "what"), [(long, "kept whole"), ("b", "two words")]), width)
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    letters = "".join(re.split(r"\s{2,}", line.strip())[0] for line in lines)
    assert long in letters
    assert "kept" in "".join(lines)


def test_a_table_without_rows_is_drawn() -> None:
    assert any("class" in line for line in shown(Table("T", ("class", "images"), []), 40))


def on_a_terminal(arguments: list[str], cwd: Path, **environment: str) -> str:
    """What a command writes where stdout and stderr are a terminal."""
    primary, secondary = pytest.importorskip("pty").openpty()
    known = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "skinlesion_cli", *arguments],
        cwd=cwd,
        stdin=secondary,
        stdout=secondary,
        stderr=secondary,
        env=known | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "80"} | environment,
    )
    os.close(secondary)
    written = b""
    while True:
        try:
            block = os.read(primary, 1 << 16)
        except OSError:  # Linux says so when the other end is closed
            break
        if not block:
            break
        written += block
    os.close(primary)
    process.wait(timeout=HANG_S)
    return written.decode("utf-8", "replace")


@pytest.mark.parametrize("arguments", [["--help"], ["predict"]])
def test_no_color_takes_the_colours_away(arguments: list[str], tmp_path: Path) -> None:
    assert COLOUR.search(on_a_terminal(arguments, tmp_path))
    assert not COLOUR.search(on_a_terminal(arguments, tmp_path, NO_COLOR="1"))


def test_no_color_holds_for_results(tmp_path: Path) -> None:
    (tmp_path / "skinlesion-workspace" / "dataset").mkdir(parents=True)
    (tmp_path / "skinlesion-workspace" / "dataset" / "manifest.json").write_text("{")
    assert COLOUR.search(on_a_terminal(["info"], tmp_path))
    plain = on_a_terminal(["info"], tmp_path, NO_COLOR="1")
    assert "warning: " in plain
    assert not COLOUR.search(plain)


def test_help_lists_commands_as_the_work_goes(run: Run) -> None:
    wanted = ["download", "train", "ensemble", "calibrate", "predict", "info"]
    listed = [
        words[0] for line in run("--help").stdout.splitlines() if (words := re.findall(r"[\w-]+", line))
    ]
    assert [name for name in listed if name in wanted] == wanted


def test_neither_help_nor_a_refused_choice_loads_anything_heavy(skinlesion) -> None:
    for arguments in (["--help"], ["predict", "--help"], ["doctor", "--help"], ["train", "--arch", "q"]):
        done = skinlesion(*arguments, PYTHONPROFILEIMPORTTIME="1")
        lines = done.stderr.splitlines()
        loaded = {line.split("|")[-1].strip() for line in lines if line.startswith("import time:")}
        assert "skinlesion_cli.cli.app" in loaded
        assert not loaded & {"torch", "timm", "pandas", "numpy", "PIL", "scipy", "albumentations"}, arguments
