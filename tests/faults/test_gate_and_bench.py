"""`skinlesion gate` and `skinlesion bench` at the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.decisions.adaptive.stopping import StoppingRule
from skinlesion_cli.decisions.triage import DecisionRule
from skinlesion_cli.inference import exporting
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages import bench
from skinlesion_cli.stages.bench import BenchSettings, _AsMeasured
from tests.support.class_lists import ISIC2018
from tests.support.command_line import run

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


def test_with_folds_one_of_them_is_held_out_from_the_gate(dataset: Path, tmp_path: Path) -> None:
    options = ("--split", "kfold", "--folds", 3, "-w", tmp_path / "ws", "--quiet")
    done = run("download", "--from", dataset.parent / "in", *options)
    assert done.exit_code == 0, done.output
    done = run("gate", "-w", tmp_path / "ws", "--json", "--quiet")
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)["figures"]
    assert figures["fitted_on_images"] + figures["validation_images"] == 420
    # A third, but for lesions that stay together.
    assert 120 <= figures["validation_images"] <= 160


def test_with_folds_an_export_is_compared_on_the_images_that_its_network_never_saw(
    dataset: Path, tmp_path: Path
) -> None:
    options = ("--split", "kfold", "--folds", 3, "-w", tmp_path / "ws", "--quiet")
    assert run("download", "--from", dataset.parent / "in", *options).exit_code == 0
    workspace = Workspace(tmp_path / "ws")
    judged = []
    for fold in range(3):
        sample = exporting.sample(workspace, fold, 1000)
        assert sample is not None
        assert len(sample.labels) == len(sample.judged)
        assert len(sample.ranges) == 128
        assert not set(sample.ranges) & set(sample.judged)
        judged += sample.judged
    assert len(judged) == len(set(judged)) == 420


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
    assert figures["adaptive"] is None


def test_bench_of_an_adaptive_model_counts_the_steps_of_validation_not_of_its_own_image(
    tmp_path: Path,
) -> None:
    from tests.support.tiny_models import make_workspace

    # A margin factor that nothing meets: the generated image itself gets all steps.
    rule = StoppingRule(DecisionRule(ISIC2018), margin_factor=1e9, n_views=8, weights=(0.5, 0.5))
    shares = [0.75, 0.0, 0.0, 0.25, *[0.0] * 12]
    stopping = {"stopping_rule": rule.to_json(), "step_shares": shares}
    workspace = make_workspace(tmp_path / "ws", stopping=stopping)
    config = BenchSettings(workspace=workspace, images=1000, seconds=0.1, runtime="torch")
    result = bench.run(config, SilentReporter())
    figures, adaptive = result.figures, result.figures["adaptive"]
    # 0.75 * 1 + 0.25 * 4 = 1.75.
    assert adaptive["mean_steps"] == 1.75
    assert (adaptive["n_steps"], adaptive["sample_mean_forward_passes"]) == (16, 16.0)
    assert adaptive["all_steps_seconds"] == pytest.approx(
        1000 / max(adaptive["all_steps_images_per_s"].values())
    )
    assert figures["seconds"] == pytest.approx(1000 / max(figures["whole_images_per_s"].values()))
    assert {"all networks, adaptive", "all networks, all steps"} <= set(figures["images_per_s"])
    assert "1.75 of 16 steps" in result.headline[1]


def test_steps_as_measured_come_in_the_shares_given() -> None:
    rule = StoppingRule(DecisionRule(ISIC2018), margin_factor=1.0, n_views=4)
    drawn, waiting, gone = _AsMeasured(rule, np.array([0.5, 0.0, 0.3, 0.2])), 20_000, []
    for n_steps in (1, 2, 3, 4):
        settled = drawn.converged(np.zeros((waiting, 7)), n_steps)
        gone.append(int(settled.sum()))
        waiting -= gone[-1]
    assert waiting == 0
    # Three standard deviations of a share of 20,000 are at most 0.011.
    np.testing.assert_allclose(np.array(gone) / 20_000, [0.5, 0.0, 0.3, 0.2], atol=0.011)


def test_bench_names_samples_that_are_not_there(tiny_workspace: Path, tmp_path: Path) -> None:
    done = run("bench", tmp_path / "nowhere.jpg", "-w", tiny_workspace)
    assert done.exit_code == 2
    assert "nowhere.jpg" in done.output


def test_bench_with_an_unfinished_model_says_what_to_run(tmp_path: Path) -> None:
    (tmp_path / "begun" / "models" / "tiny" / "state").mkdir(parents=True)
    done = run("bench", "-w", tmp_path / "begun", "--seconds", "0.1")
    assert done.exit_code == 4
    assert "skinlesion" in done.output
