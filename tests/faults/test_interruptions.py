"""Commands that are killed, told to end, or started twice: what is finished is kept,
and the next run goes on.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from skinlesion_cli.artifacts.files import exclusive
from tests.support.command_line import assert_refused, contents, run
from tests.support.limits import HANG_S

pytestmark = pytest.mark.command_line

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    *("--arch", "tiny", "--weights", "none", "--device", "cpu", "--workers", "0", "--epochs", "2"),
    *("--batch-size", "16", "--set", "input_size_px=32", "--set", "progressive_sizes_px=[]"),
    *("--recipe", "light", "--set", "harmonise_px=40"),
]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("folder", "command", "at_least"),
    [
        # A lock's holder, the weights, and two tables of predictions with their two payloads each.
        ("ensemble", ("ensemble",), 8),
        ("calibration", ("calibrate",), 2),
    ],
)
def test_killed_at_every_step_it_ends_with_the_same_bytes(
    folder: str, command: tuple[str, ...], at_least: int, calibrated: Path, tmp_path: Path
) -> None:
    """From an older artifact in the same place, made with other settings."""
    for name in ("whole", "killed"):
        shutil.copytree(calibrated, tmp_path / name)
    other = {"ensemble": ("ensemble", "--method", "equal"), "calibration": ("calibrate", "--policy", "none")}
    assert run(*other[folder], "-w", tmp_path / "killed").exit_code == 0
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "tests" / "support" / "killing.py",
            tmp_path / "whole",
            tmp_path / "killed",
            folder,
            *command,
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > at_least
    assert contents(tmp_path / "killed" / folder) == contents(tmp_path / "whole" / folder)
    assert not list((tmp_path / "killed").rglob("*.tmp"))


@pytest.fixture(scope="module")
def dataset(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a dataset, a trained network, an ensemble and a calibration."""
    folder = tmp_path_factory.mktemp("dataset") / "ws"
    for arguments in (
        ("download", "--from", generated, "--split", "grouped"),
        ("train", *SMALL),
        ("ensemble",),
        ("calibrate", "--policy", "none"),
    ):
        done = run(*arguments, "-w", folder)
        assert done.exit_code == 0, done.output
    return folder


IN = "{in}"
SOURCE = "{source}"
OUT = "{out}"


def filled_in(argument: str, places: dict[str, Path]) -> str:
    for name, place in places.items():
        argument = argument.replace(name, str(place))
    return argument


# A command, what it is doing when the signal comes, and the folder that it writes to.
LONG = {
    "download": (("download", "--from", SOURCE, "--split", "grouped"), "data.ingest._place", "dataset"),
    "train": (
        ("train", *SMALL, "--workers", "2", "--fresh"),
        "models.training.trainer.Trainer.train_step",
        "models",
    ),
    "ensemble": (("ensemble", "--method", "equal"), "stages.ensemble.stage._merge", "ensemble"),
    "calibrate": (("calibrate",), "stages.calibrate.stage.cross_fit", "calibration"),
    "evaluate": (("evaluate",), "stages.evaluate.stage.judging.evaluate", "evaluation"),
    "gate": (("gate",), "stages.quality_gate.stage.read_image", "calibration"),
    "export": (("export",), "models.onnx_export.to_graph", "models"),
    "predict": (("predict", IN, "-o", f"{OUT}/a.csv"), "inference.sources.load", OUT),
    "explain": (("explain", IN, "-o", OUT), "inference.sources.load", OUT),
    "select": (("select", IN, "-o", f"{OUT}/a.csv"), "inference.sources.load", OUT),
    "bench": (("bench", "--seconds", "0.1"), "stages.bench.statistics", "models"),
}


@pytest.mark.parametrize("name", LONG)
def test_told_to_end_it_ends_with_143_and_nothing_is_half(
    name: str, dataset: Path, generated: Path, images: Path, tmp_path: Path
) -> None:
    if name == "export":
        pytest.importorskip("onnxscript")
    arguments, place, folder = LONG[name]
    workspace = Path(shutil.copytree(dataset, tmp_path / "ws"))
    before = contents(workspace)
    places = {IN: images, SOURCE: generated, OUT: tmp_path / "out"}
    filled = [filled_in(argument, places) for argument in arguments]
    driver = ROOT / "tests" / "support" / "interrupted.py"
    done = subprocess.run(
        [sys.executable, driver, place, *filled, "-w", workspace],
        capture_output=True,
        text=True,
        timeout=HANG_S,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        # The signal reaches its loader processes too.
        start_new_session=True,
    )
    assert done.returncode == 143, done.stderr
    assert "interrupted; finished work is kept" in done.stderr
    assert "Traceback" not in done.stderr
    written = tmp_path / "out" if folder == OUT else workspace / folder
    assert [path.name for path in written.rglob("*.tmp")] == []
    if name == "train":
        # The next training resumes: its state is the only thing that is new.
        state = {file: content for file, content in contents(workspace).items() if "/state/" in file}
        assert "models/tiny/state/state.json" in state
        before |= state
    if name == "ensemble":
        # The weights are there; who reads them finds that the predictions are not yet theirs.
        assert_refused(run("calibrate", "-w", workspace), 4, "was made from ensemble")
        return
    now = contents(workspace)
    assert {file for file in now if file not in before} == set()
    assert [file for file in before if now.get(file) != before[file] and "/cache/" not in file] == []


HELD = {
    "download": (("download", "--from", SOURCE, "--split", "grouped"), "dataset", "download"),
    "train": (("train", *SMALL, "--fresh"), "models/tiny", "train"),
    "ensemble": (("ensemble",), "ensemble", "ensemble"),
    "calibrate": (("calibrate",), "calibration", "calibrate"),
    "evaluate": (("evaluate", "--resamples", "0"), "evaluation/ensemble-test", "evaluate"),
    "predict": (("predict", IN, "-o", "{ws}/a.csv"), ".", "predict-a.csv"),
    "explain": (("explain", IN, "-o", "{ws}/maps"), "maps", "explain"),
}


@pytest.mark.parametrize("name", HELD)
def test_the_second_of_two_is_told_who_holds_the_folder(
    name: str, dataset: Path, images: Path, tmp_path: Path
) -> None:
    arguments, folder, purpose = HELD[name]
    workspace = Path(shutil.copytree(dataset, tmp_path / "ws"))
    places = {IN: images, SOURCE: images, "{ws}": workspace}
    filled = [filled_in(argument, places) for argument in arguments]
    before = contents(workspace)
    with exclusive(workspace / folder, purpose):
        assert_refused(
            run(*filled, "-w", workspace), 1, f"is in use by process {os.getpid()}", f"({purpose})"
        )
    assert contents(workspace) == before


@pytest.mark.parametrize(
    ("arguments", "folder", "purpose"),
    [HELD["ensemble"], HELD["calibrate"], HELD["evaluate"]],
    ids=["ensemble", "calibrate", "evaluate"],
)
def test_a_lock_that_is_a_link_stops_the_command(
    arguments: tuple[str, ...], folder: str, purpose: str, own_calibrated: Path, tmp_path: Path
) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("keep")
    (own_calibrated / folder).mkdir(parents=True, exist_ok=True)
    (own_calibrated / folder / f".{purpose}.lock").unlink(missing_ok=True)
    (own_calibrated / folder / f".{purpose}.lock").symlink_to(precious)
    before = contents(own_calibrated)
    assert_refused(run(*arguments, "-w", own_calibrated), 1, "is a link and is not followed")
    assert precious.read_text() == "keep"
    assert contents(own_calibrated) == before


@pytest.mark.parametrize("place", ["a.csv", "a.csv.partial", "a.csv.partial.run"])
def test_a_link_at_the_place_of_an_output_is_not_written_through(
    place: str, tiny_workspace: Path, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    for kind in ("file", "nothing"):
        target = tmp_path / kind
        if kind == "file":
            target.write_text("keep")
        (tmp_path / "out" / place).unlink(missing_ok=True)
        (tmp_path / "out" / place).symlink_to(target)
        arguments = ("predict", images, "-o", tmp_path / "out" / "a.csv", "-w", tiny_workspace, "--overwrite")
        done = run(*arguments)
        if place == "a.csv.partial":
            assert_refused(done, 1, "is a link and is not followed")
        else:
            assert done.exit_code == 0, done.output
            assert not (tmp_path / "out" / "a.csv").is_symlink()
    assert (tmp_path / "file").read_text() == "keep"
    assert not (tmp_path / "nothing").exists()


def test_a_link_at_the_place_of_an_artifact_is_replaced(own_calibrated: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("keep")
    output = tmp_path / "second.json"
    output.symlink_to(precious)
    done = run("calibrate", "--policy", "none", "-o", output, "-w", own_calibrated)
    assert done.exit_code == 0, done.output
    assert precious.read_text() == "keep"
    assert not output.is_symlink()
