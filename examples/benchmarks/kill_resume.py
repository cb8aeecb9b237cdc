"""Kill a training at random moments, resume it with the same command each time,
and compare the final weights.

    python examples/benchmarks/kill_resume.py --kills 20

Trains a tiny network on generated images twice with the `skinlesion` command: once without interruption, once
killed this many times (SIGKILL, which no process can catch). The weights have to be the same, bit for bit.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples"))

TRAIN = [
    *("train", "--arch", "tiny", "--weights", "none", "--seed", "5", "--device", "cpu", "--workers", "1"),
    *("--batch-size", "16", "--set", "input_size_px=32", "--set", "progressive_sizes_px=[]"),
    *("--recipe", "light", "--set", "harmonise_px=40", "--set", "mixup_alpha=0.2"),
]


def command(workspace: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "skinlesion_cli", *arguments, "--workspace", str(workspace)]


def environment() -> dict[str, str]:
    # One thread: the sum of a float32 depends on how it is split among threads.
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def prepare(folder: Path, dataset: Path) -> Path:
    """A workspace with the generated dataset."""
    workspace = folder / "workspace"
    arguments = ("download", "--from", str(dataset), "--split", "grouped", "--quiet")
    subprocess.run(command(workspace, *arguments), env=environment(), check=True, stdout=subprocess.DEVNULL)
    return workspace


def train_killed(workspace: Path, epochs: int, kills: int, seed: int) -> list[str]:
    """Run the training to its end, killing it `kills` times;
    returns the line that says where each attempt started.
    """
    generator = random.Random(seed)
    starts: list[str] = []
    while True:
        process = subprocess.Popen(
            command(workspace, *TRAIN, "--epochs", str(epochs)),
            env=environment(),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert process.stderr is not None
        # Killed in the epoch after this many: moments are counted in epochs, since a busy machine is slow.
        epochs_left = (generator.randint(0, 1) if starts else 1) if kills else epochs
        started, lines = time.monotonic(), []
        for line in process.stderr:
            lines.append(line)
            if line.startswith(("resuming at", "initial weights")):
                started = time.monotonic()
            epochs_left -= line.startswith("train: epoch")
            if kills and epochs_left <= 0 and any(text.startswith("initial weights") for text in lines):
                break
        starts.append(next((text for text in lines if text.startswith("resuming at")), lines[0]).strip())
        if kills:
            kills -= 1
            time.sleep(generator.uniform(0.0, 1.0) * (time.monotonic() - started))
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if not list(workspace.glob("models/tiny/checkpoint.json")):
                continue
            raise SystemExit("the training ended before the last kill: raise --epochs")
        if process.wait():
            raise SystemExit("the training failed:\n" + "".join(lines))
        return starts


def final_weights(workspace: Path) -> bytes:
    return next(workspace.glob("models/tiny/checkpoint.weights-*.safetensors")).read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    import make_images

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images.make(folder / "images", 105, seed=1, width=96, height=72, official=True)
        results = []
        for kills in (0, options.kills):
            workspace = prepare(folder / str(kills), folder / "images")
            started = time.monotonic()
            lines = train_killed(workspace, options.epochs, kills, options.seed)
            print(f"{kills} kills: {time.monotonic() - started:.0f} s")
            for line in lines:
                print(f"  {line}")
            results.append(final_weights(workspace))
    same = results[0] == results[1]
    print("final weights are " + ("identical" if same else "DIFFERENT"))
    raise SystemExit(0 if same else 1)


if __name__ == "__main__":
    main()
