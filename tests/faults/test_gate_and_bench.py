"""`skinlesion gate` and `skinlesion bench` at the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run

pytestmark = pytest.mark.command_line


def make_dataset(folder: Path, images: int) -> Path:
    """A workspace with so many generated images, split by lesion."""
    import make_images

    make_images.make(folder / "in", images, seed=3, width=64, height=48, official=True)
    done = run("download", "--from", folder / "in", "--split", "grouped", "-w", folder / "ws", "--quiet")
    assert done.exit_code == 0, done.output
    return folder / "ws"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough training images for a gate."""
    return make_dataset(tmp_path_factory.mktemp("gate"), 420)


def test_gate_counts_its_false_alarms_on_validation_images(dataset: Path) -> None:
    done = run("gate", "-w", dataset, "--json", "--quiet")
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)["figures"]
    assert figures["fitted_on_images"] >= 200
    assert figures["validation_images"] > 50
    assert figures["fitted_on_images"] + figures["validation_images"] < 420
    assert figures["false_alarm_rate"] == figures["false_alarms"] / figures["validation_images"]
    low, high = figures["interval_95"]
    assert 0 <= low <= figures["false_alarm_rate"] <= high <= 1
    # An image fails once, however many checks it fails.
    assert figures["false_alarms"] <= sum(figures["by_check"].values())
    assert (dataset / "calibration" / "gate.json").is_file()


def test_gate_of_too_few_images_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    workspace = make_dataset(tmp_path, 35)
    done = run("gate", "-w", workspace)
    assert done.exit_code == 1, done.output
    assert "200" in done.output
    assert not (workspace / "calibration" / "gate.json").exists()


def test_gate_without_a_dataset_says_what_to_run(tmp_path: Path) -> None:
    done = run("gate", "-w", tmp_path / "none")
    assert done.exit_code == 4
    assert "skinlesion download" in done.output


@pytest.mark.parametrize("rate", ["0", "0.5", "-1", "nan"])
def test_gate_refuses_a_false_alarm_rate_that_makes_no_sense(dataset: Path, rate: str) -> None:
    assert run("gate", "-w", dataset, "--false-alarm-rate", rate).exit_code == 2


def test_bench_measures_every_part_and_extrapolates(tiny_workspace: Path) -> None:
    options = ("--seconds", "0.1", "--images", 5000, "--runtime", "torch", "--json", "-q")
    done = run("bench", "-w", tiny_workspace, *options)
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)["figures"]
    assert figures["runtime"] == "torch"
    assert figures["tta"] == "d4"
    parts = figures["images_per_s"]
    assert {"decode", "quality statistics", "turn one view", "decide", "write a CSV row"} <= set(parts)
    assert sum(name.startswith("network ") for name in parts) == 1
    assert all(speed > 0 for speed in parts.values())
    best = figures["whole_images_per_s"][str(figures["threads"])]
    assert best == max(figures["whole_images_per_s"].values())
    assert figures["seconds"] == pytest.approx(5000 / best)


def test_bench_names_samples_that_are_not_there(tiny_workspace: Path, tmp_path: Path) -> None:
    done = run("bench", tmp_path / "nowhere.jpg", "-w", tiny_workspace)
    assert done.exit_code == 2
    assert "nowhere.jpg" in done.output


def test_bench_with_an_unfinished_model_says_what_to_run(tmp_path: Path) -> None:
    (tmp_path / "begun" / "models" / "tiny" / "state").mkdir(parents=True)
    done = run("bench", "-w", tmp_path / "begun", "--seconds", "0.1")
    assert done.exit_code == 4
    assert "skinlesion" in done.output
