"""Every command with `--json`: one envelope for results and for errors, as the schema says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from skinlesion_cli.cli import boundary, envelope
from skinlesion_cli.cli.app import app
from skinlesion_cli.errors import ExitCode, Interruption
from tests.cli.conftest import COMMANDS, Places, Run
from tests.support.tiny_training import TINY

SCHEMA = json.loads(envelope.SCHEMA_FILE.read_text("utf-8"))
Arguments = tuple[object, ...]


def with_dataset(workspace: Path, new: Path) -> Path:
    """A new workspace that shares the dataset of another."""
    new.mkdir()
    (new / "dataset").symlink_to(workspace / "dataset")
    return new


# What each command is run with, on what it needs; a folder of its own for what it writes.
SUCCESSES: dict[str, Callable[[Places, Path], Arguments]] = {
    "average": lambda at, out: (*2 * ("--model", at.finished), "-w", with_dataset(at.dataset, out / "mean")),
    "bench": lambda at, out: ("--seconds", 0.1, "--runtime", "torch", "-w", at.finished),
    "calibrate": lambda at, out: ("--policy", "none", "-o", out / "calibration.json", "-w", at.stored),
    "doctor": lambda at, out: ("-w", at.finished),
    "download": lambda at, out: ("--from", at.generated, "-w", out / "ws"),
    "ensemble": lambda at, out: ("one", "--method", "equal", "-w", at.stored),
    "evaluate": lambda at, out: ("--source", "one", "--resamples", 20, "-o", out, "-w", at.stored),
    "explain": lambda at, out: (at.images, "-o", out / "maps", "-w", at.finished),
    "export": lambda at, out: ("--images", 4, "-w", at.finished),
    "gate": lambda at, out: ("-w", at.dataset),
    "info": lambda at, out: ("-w", at.dataset),
    "merge": lambda at, out: (out / "1.csv", out / "2.csv", "-o", out / "all.csv"),
    "pack": lambda at, out: ("-o", out / "packed", "-w", at.finished),
    "predict": lambda at, out: (at.images, "-o", out / "rows.csv", "-w", at.finished, "--runtime", "torch"),
    "select": lambda at, out: (at.images, "-n", 2, "-o", out / "list.csv", "-w", at.finished),
    "train": lambda at, out: (*TINY, "--epochs", 1, "-w", at.dataset),
}
# What each command says where it cannot: arguments, exit code, and words of the message.
FAILURES: dict[str, tuple[Arguments, int, str]] = {
    "average": (
        ("--model", "none", "--model", "other", "-w", "new"),
        4,
        "there is no trained network in none",
    ),
    "bench": (("nowhere.jpg",), 2, "there is no file nowhere.jpg"),
    "calibrate": (("-w", "none"), 4, "none/ensemble/ensemble.json is not there"),
    "doctor": (("--device", "cpu"), 2, "No such option: --device"),
    "download": (("--from", "nowhere", "-w", "none"), 2, "nowhere does not exist"),
    "ensemble": (("-w", "none"), 4, "no network is trained"),
    "evaluate": (("-w", "none"), 4, "is not there"),
    "explain": (("nowhere.jpg", "-w", "none"), 2, "there is no file or folder nowhere.jpg"),
    "export": (("-w", "none"), 4, "there is no workspace none"),
    "gate": (("-w", "none"), 4, "none/dataset/manifest.json is not there"),
    "info": (("extra",), 2, "Got unexpected extra argument"),
    "merge": (("one.csv", "-o", "all.csv"), 4, "one.csv"),
    "pack": (("-o", "packed", "-w", "none"), 4, "none"),
    "predict": (("nowhere.jpg",), 2, "there is no file or folder nowhere.jpg"),
    "select": (("nowhere.jpg", "-w", "none"), 2, "there is no file or folder nowhere.jpg"),
    "train": (("--arch", "tiny", "-w", "none"), 4, "none/dataset/manifest.json is not there"),
}


def checked(text: str) -> dict[str, Any]:
    """The one JSON document that `text` is, valid against the schema."""
    told = json.loads(text)
    jsonschema.validate(told, SCHEMA, cls=jsonschema.Draft202012Validator)
    return told


def test_every_command_is_tried() -> None:
    assert set(SUCCESSES) == set(COMMANDS)
    assert set(FAILURES) == set(COMMANDS)


@pytest.mark.parametrize("name", sorted(SUCCESSES))
def test_a_result_is_an_envelope_and_quiet_is_silent(
    name: str, places: Places, tmp_path: Path, run: Run
) -> None:
    if name == "export":
        pytest.importorskip("onnxscript")
    if name == "merge":
        for share in (1, 2):
            rows = (places.images, "--shard", f"{share}/2", "-o", tmp_path / f"{share}.csv")
            assert run("predict", *rows, "-w", places.finished).exit_code == 0
    done = run(name, *SUCCESSES[name](places, tmp_path), "--json", "--quiet")
    assert done.exit_code == 0, done.output
    told = checked(done.stdout)
    assert told["command"] == name
    assert told["status"] == "ok"
    assert told["exit_code"] == 0
    assert told["figures"]
    assert done.stderr == ""


@pytest.mark.parametrize("name", sorted(FAILURES))
def test_an_error_is_an_envelope_and_the_message_stays_on_stderr(
    name: str, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, code, words = FAILURES[name]
    done = run(name, *arguments, "--json", "--quiet")
    assert done.exit_code == code, done.output
    told = checked(done.stdout)
    assert (told["command"], told["status"], told["exit_code"]) == (name, "error", code)
    assert words in told["message"]
    assert words.split()[0] in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_wrong_usage_is_an_envelope(name: str, run: Run) -> None:
    done = run(name, "--no-such-option", "--json")
    assert done.exit_code == 2
    told = checked(done.stdout)
    assert (told["command"], told["status"], told["exit_code"]) == (name, "error", 2)
    assert "No such option: --no-such-option" in told["message"]
    assert told["hint"].endswith(f"{name} --help`.")
    assert "No such option" in done.stderr


def test_a_command_that_does_not_exist_is_an_envelope(run: Run) -> None:
    told = checked(run("predikt", "x.jpg", "--json").stdout)
    assert told["command"] is None
    assert told["exit_code"] == 2
    assert "'predict'" in told["message"]


def test_without_json_an_error_leaves_stdout_empty(run: Run) -> None:
    done = run("bench", "nowhere.jpg")
    assert done.stdout == ""
    assert done.stderr.startswith("error: there is no file nowhere.jpg\n")


def test_some_failed_inputs_are_a_partial_result(places: Places, tmp_path: Path, run: Run) -> None:
    (tmp_path / "bad.jpg").write_text("no image")
    done = run(
        "predict",
        tmp_path / "bad.jpg",
        places.images,
        "-o",
        tmp_path / "o.csv",
        "-w",
        places.finished,
        "--json",
    )
    assert done.exit_code == 3, done.output
    told = checked(done.stdout)
    assert (told["status"], told["exit_code"], told["message"]) == ("partial", 3, None)


def test_an_error_stays_out_of_rows_that_stream(places: Places, run: Run) -> None:
    done = run("predict", "nowhere.jpg", "-o", "-", "-w", places.finished, "--json")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert '"status": "error"' in done.stderr


def test_a_fault_of_ours_is_an_envelope(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skinlesion_cli.stages.info.stage.run", lambda *_: 1 / 0)
    done = run("info", "--json")
    assert done.exit_code == 1
    told = checked(done.stdout)
    assert told["message"] == "this should not happen: ZeroDivisionError: division by zero"
    assert "--debug" in told["hint"]


def test_an_interruption_is_an_envelope(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise Interruption(ExitCode.TERMINATED)

    monkeypatch.setattr("skinlesion_cli.stages.info.stage.run", interrupt)
    with pytest.raises(Interruption):
        app(["info", "--json"], standalone_mode=False)
    told = checked(capsys.readouterr().out)
    assert (told["status"], told["exit_code"]) == ("error", 143)
    assert told["message"] == boundary.INTERRUPTED


def test_the_schema_is_one_and_lies_in_the_package() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert envelope.SCHEMA_FILE.parent.name == "cli"
    assert SCHEMA["properties"]["exit_code"]["enum"] == [int(code) for code in ExitCode]


@pytest.mark.parametrize(
    "change",
    [
        {"status": "fine"},
        {"exit_code": 1},
        {"message": "but all is well"},
        {"figures": None},
        {"status": "error", "exit_code": 1},
        {"status": "error", "exit_code": 0, "message": "failed"},
        {"status": "partial"},
        {"extra": 1},
        {"schema": "skinlesion.result/2"},
    ],
)
def test_the_schema_refuses_what_contradicts_itself(change: dict[str, object]) -> None:
    from skinlesion_cli.result import StageResult

    good = envelope.of_result(StageResult(command="info", headline=[]))
    jsonschema.validate(good, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(good | change, SCHEMA)
