"""Standard streams that are closed, full or cut short, and text that would change the terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from skinlesion_cli.cli import boundary
from skinlesion_cli.cli.terminal import printable
from skinlesion_cli.errors import SkinLesionError
from tests.cli.conftest import Places, Run
from tests.conftest import ROOT
from tests.support.limits import HANG_S

pytestmark = pytest.mark.command_line


def shell(line: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash in which `skinlesion` is the command."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    script = f'skinlesion() {{ "{sys.executable}" -m skinlesion_cli "$@"; }}\n{line}'
    return subprocess.run(
        ["bash", "-c", script],
        cwd=cwd,
        capture_output=True,
        timeout=HANG_S,
        env=os.environ | {"PYTHONPATH": paths, "NO_COLOR": "1", "TERM": "dumb"} | environment,
    )


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "2>/dev/full", "<&- >&- 2>&-"])
def test_predicts_all_the_same(redirection: str, places: Places, tmp_path: Path) -> None:
    line = (
        f"skinlesion predict {places.images} -w {places.finished} --runtime torch -o rows.csv {redirection}"
    )
    done = shell(line, tmp_path)
    assert done.returncode == 0, done.stderr
    rows = (tmp_path / "rows.csv").read_text().splitlines()
    assert len(rows) == 5
    assert all(",ok," in row for row in rows[1:])
    # Nothing that was printed got into a file.
    assert not any(b"model: " in path.read_bytes() for path in tmp_path.iterdir())
    if redirection == ">&-":
        assert done.stdout == b""
        assert b"model: " in done.stderr


def test_rows_for_a_closed_stdout_are_refused(places: Places, tmp_path: Path) -> None:
    done = shell(f"skinlesion predict {places.images} -w {places.finished} -o - >&-", tmp_path)
    assert done.returncode == 2
    assert b"stdout" in done.stderr


@pytest.mark.parametrize("options", ["", "--json"])
def test_a_result_that_cannot_be_printed_is_a_failure(options: str, places: Places, tmp_path: Path) -> None:
    done = shell(f"skinlesion info -w {places.stored} {options} >/dev/full", tmp_path)
    assert done.returncode == 1
    assert done.stderr.count(b"No space left on device") == 1
    assert b"should not happen" not in done.stderr
    assert b"Exception ignored" not in done.stderr


@pytest.mark.parametrize("pipe", ["|", "2>&1 |"])
def test_a_reader_that_leaves_ends_the_command_quietly(pipe: str, places: Places, tmp_path: Path) -> None:
    line = f"skinlesion info -w {places.stored} {pipe} true; echo ${{PIPESTATUS[0]}}"
    done = shell(line, tmp_path)
    assert done.stdout == b"0\n"
    assert b"Broken pipe" not in done.stderr
    assert b"Traceback" not in done.stderr


def test_variables_of_another_launcher_do_not_silence_errors(tmp_path: Path) -> None:
    for environment in ({"RANK": "1"}, {"RANK": "1", "WORLD_SIZE": "2"}):
        done = shell("skinlesion predict nowhere.jpg", tmp_path, **environment)
        assert done.returncode == 2
        assert done.stderr.startswith(b"error: ")
        assert b"nowhere.jpg" in done.stderr


def test_only_the_first_process_of_a_distributed_training_reports(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(boundary, "_FIRST_REPORTS_WITHIN_S", 0)
    done = run("train", "--json")
    assert (done.exit_code, done.output) == (2, "")
    monkeypatch.setenv("WORLD_SIZE", "1")
    done = run("train", "--json")
    assert done.exit_code == 2
    assert json.loads(done.stdout)["message"] == "--arch is missing"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("\udcff.jpg", r"\udcff.jpg"),
        ("gpj.\u202eevil", r"gpj.\u202eevil"),
        ("Läsion 病变 😀", "Läsion 病变 😀"),
        ("\U000e0041", r"\U000e0041"),
        ("a\rb", r"a\x0db"),
    ],
)
def test_text_for_the_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


ESCAPE = "\x1b]0;owned\x07"


def test_escapes_in_names_reach_no_terminal(run: Run, tmp_path: Path) -> None:
    for arguments in (
        ("predict", f"{ESCAPE}.jpg"),
        ("predict", "x.jpg", "--tta", ESCAPE),
        ("predict", "x.jpg", f"--{ESCAPE}"),
        (ESCAPE,),
        ("info", "-w", tmp_path / ESCAPE),
        ("evaluate", "-w", tmp_path / "none", "--source", f"{ESCAPE}.csv"),
        ("predict", "x.jpg", "--debug", "--shard", ESCAPE),
    ):
        done = run(*arguments)
        assert done.exit_code in (0, 1, 2), done.output
        assert "owned" in done.output
        assert "\x1b" not in done.output
        assert "\x07" not in done.output


def test_surrogates_and_escapes_at_the_command_line(tmp_path: Path) -> None:
    done = shell(r"skinlesion predict $'\xff\e[2J.jpg' --json", tmp_path, LC_ALL="C")
    assert done.returncode == 2
    assert rb"\udcff\x1b[2J.jpg" in done.stderr
    assert json.loads(done.stdout)["exit_code"] == 2


def test_what_the_operating_system_refuses_is_no_bug(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device", "somewhere/table.csv")

    monkeypatch.setattr("skinlesion_cli.stages.info.stage.run", refuse)
    done = run("info")
    assert done.exit_code == 1
    assert "No space left on device: somewhere/table.csv" in done.stderr
    assert "should not happen" not in done.stderr


def test_notes_and_warnings_are_escaped(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from skinlesion_cli.result import StageResult, Table

    def speak(settings: object, reporter: object) -> StageResult:
        reporter.note(ESCAPE)  # type: ignore[attr-defined]
        reporter.row(ESCAPE, {ESCAPE: ESCAPE})  # type: ignore[attr-defined]
        with reporter.task(ESCAPE):  # type: ignore[attr-defined]
            pass
        table = Table(ESCAPE, (ESCAPE, "b"), [(ESCAPE, "c")])
        return StageResult(
            "info", [ESCAPE], tables=[table], artifacts=[ESCAPE], warnings=[ESCAPE], next_command=ESCAPE
        )

    monkeypatch.setattr("skinlesion_cli.stages.info.stage.run", speak)
    done = run("info")
    assert done.exit_code == 0
    assert done.output.count("owned") >= 10
    assert "\x1b" not in done.output
    monkeypatch.setattr(
        "skinlesion_cli.stages.info.stage.run",
        lambda *_: (_ for _ in ()).throw(SkinLesionError(ESCAPE, ESCAPE)),
    )
    assert "\x1b" not in run("info").output
