"""Trainings in separate processes: killed and resumed, and several that train together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from skinlesion_cli.stages.train.job import TrainSettings
from tests.support.limits import HANG_S
from tests.training.small import small_recipe

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples" / "benchmarks"))

import kill_resume  # noqa: E402

SMALL = [
    *("--weights", "none", "--device", "cpu", "--workers", "0", "--batch-size", "16", "--epochs", "3"),
    *("--recipe", "light", "--set", "input_size_px=32"),
    *("--set", "progressive_sizes_px=[]", "--set", "harmonise_px=40"),
    *("--set", "drop_rate=0"),
]


@pytest.fixture(scope="module")
def workspace(generated, tmp_path_factory):
    return kill_resume.prepare(tmp_path_factory.mktemp("processes"), generated)


def linked(workspace: Path, folder: Path) -> Path:
    folder.mkdir()
    (folder / "dataset").symlink_to(workspace / "dataset")
    return folder


@pytest.mark.command_line
def test_killed_at_random_moments_it_ends_with_the_same_weights(workspace, tmp_path):
    whole, killed = linked(workspace, tmp_path / "whole"), linked(workspace, tmp_path / "killed")
    kill_resume.train_killed(whole, epochs=6, kills=0, seed=3)
    lines = kill_resume.train_killed(killed, epochs=6, kills=2, seed=3)
    assert any(line.startswith("resuming at epoch") for line in lines)
    assert kill_resume.final_weights(killed) == kill_resume.final_weights(whole)


def launch(*command: object, before: Path = ROOT) -> subprocess.CompletedProcess[str]:
    search_path = os.pathsep.join([str(before), str(ROOT)])
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env=os.environ | {"PYTHONPATH": search_path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
# On CPUs accelerate starts several processes only through MPI; its launcher for GPUs does without GPUs too.
ACCELERATE = (
    "-m",
    "accelerate.commands.launch",
    "--multi_gpu",
    "--num_processes",
    "2",
    "--num_machines",
    "1",
)


def processes(workspace: Path, name: str) -> int:
    checkpoint = json.loads((workspace / "models" / name / "checkpoint.json").read_text())
    return checkpoint["body"]["figures"]["processes"]


def history(workspace: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(workspace / "models" / name / "history.csv")


def test_two_processes_have_the_loss_curve_of_one_with_the_same_global_batch(workspace, tmp_path):
    driver = ROOT / "tests" / "support" / "group_norm_driver.py"
    alone, together = linked(workspace, tmp_path / "one"), linked(workspace, tmp_path / "two")
    arguments = ("train", "--arch", "tiny_gn", *SMALL, "--set", "loss_weight_power=0")
    one = launch(driver, *arguments, "--workspace", alone)
    two = launch(*TORCHRUN, driver, *arguments, "--workspace", together)
    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    assert (processes(alone, "tiny_gn"), processes(together, "tiny_gn")) == (1, 2)
    left, right = history(alone, "tiny_gn"), history(together, "tiny_gn")
    assert left["train_loss"].tolist() == pytest.approx(right["train_loss"].tolist(), abs=1e-4)
    assert left["val_loss"].tolist() == pytest.approx(right["val_loss"].tolist(), abs=1e-4)
    # One writer, one voice.
    assert two.stdout.count("tiny_gn: validation BACC") == 1
    assert two.stderr.count("train: epoch 2/3") == 1
    files = [
        sorted(p.name.split("-")[0] for p in (f / "models" / "tiny_gn").iterdir()) for f in (alone, together)
    ]
    assert files[0] == files[1]


def test_accelerate_launches_the_command_itself(workspace, tmp_path):
    folder = linked(workspace, tmp_path / "accelerate")
    frozen = ("--set", "freeze_from=0.5", "--set", "freeze_stages=2")
    arguments = ("-m", "skinlesion_cli", "train", "--arch", "tiny", *SMALL, *frozen, "--workspace", folder)
    done = launch(*ACCELERATE, "--main_process_port", "0", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("tiny: validation BACC") == 1
    assert processes(folder, "tiny") == 2
    assert len(history(folder, "tiny")) == 3
    # An error that only the first process notices ends all of them and is reported once.
    refused = launch(*TORCHRUN, *arguments, "--seed", "7")
    assert refused.returncode != 0
    assert refused.stderr.count("error: models/tiny was trained with other settings: seed 42 (now 7)") == 1


def test_all_gpus_train_without_being_asked_for(workspace, tmp_path):
    driver = ROOT / "tests" / "support" / "two_gpus_driver.py"
    folder = linked(workspace, tmp_path / "gpus")
    arguments = ("train", "--arch", "tiny", *SMALL, "--workspace", folder)
    automatic = [argument for argument in arguments if argument not in ("--device", "cpu")]
    done = launch(driver, *automatic)
    assert done.returncode == 0, done.stderr
    assert "training on 2 of 2 GPUs, one process each" in done.stderr
    assert done.stdout.count("tiny: validation BACC") == 1
    assert processes(folder, "tiny") == 2
    # The exit code and the message are those of the first process, without a traceback, also where the other
    # ends before it.
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "sitecustomize.py").write_text(
        "import atexit, os, time\nif os.environ.get('RANK') == '0':\n    atexit.register(time.sleep, 2)\n"
    )
    refused = launch(driver, *automatic, "--seed", "7", before=slow)
    assert refused.returncode == 4
    assert refused.stderr.count("error: models/tiny was trained with other settings: seed 42 (now 7)") == 1
    assert "Traceback" not in refused.stderr


def test_gpus_on_which_a_training_is_started():
    from skinlesion_cli.stages.train import launching

    def n_processes(n_gpus, environment=None, **changes):
        chosen = TrainSettings(workspace=Path(), arch="tiny", recipe=small_recipe("batch_size=12"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "device_count", lambda: n_gpus)
            patch.setattr(sys, "platform", changes.pop("platform", "linux"))
            started = launching.launch_for(chosen.replace(**changes), ("train",), environment or {})
        return started.n_processes if started else None

    assert [n_processes(n) for n in (0, 1, 2, 4, 5, 8)] == [None, None, 2, 4, 4, 6]
    assert n_processes(2, device="cpu") is None
    assert n_processes(2, {"WORLD_SIZE": "2"}) is None
    assert n_processes(2, platform="win32") is None


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ({0: 4, 1: 4}, 4),
        ({0: 4, 1: 143}, 4),
        ({0: 143, 1: 143}, 143),
        ({0: -9, 1: 143}, "process 0 of the training was ended by signal 9"),
        ({0: 143, 1: -9, 2: 143}, "process 1 of the training was ended by signal 9"),
        ({1: 1, 0: -15}, "process 1 of the training failed with exit code 1"),
        ({0: 143, 2: -15, 3: 1}, "process 3 of the training failed with exit code 1"),
    ],
)
def test_how_processes_that_failed_together_end(codes, expected):
    from skinlesion_cli.stages.train.launching import _ended

    ended = _ended({rank: SimpleNamespace(exitcode=code) for rank, code in codes.items()})
    assert (ended.code if isinstance(ended, SystemExit) else ended.message) == expected
