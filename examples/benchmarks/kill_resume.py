"""Kill a training at random moments, let the same command go on each time, and compare the final weights.

    python examples/benchmarks/kill_resume.py --kills 20

Trains a tiny network on generated images twice with the project's own command: once unbroken, once killed
(SIGKILL, which no process can catch) so many times. The weights have to be the same, bit for bit.
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
    *("--set", "harmonise_px=40", "--set", "mixup_alpha=0.2"),
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
    """Run the training to its end and kill it `kills` times on the way; where each attempt went on from."""
    generator = random.Random(seed)
    went_on: list[str] = []
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
        for line in process.stderr:
            # The training is about to start: from here on any moment will do.
            if line.startswith(("going on at", "initial weights")):
                break
        went_on.append(line.strip())
        if kills:
            kills -= 1
            time.sleep(generator.uniform(0.0, 1.2))
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if not list(workspace.glob("models/tiny/checkpoint.json")):
                continue
            raise SystemExit("the training ended before the last kill: raise --epochs")
        told = process.communicate()[1]
        if process.returncode:
            raise SystemExit(f"the training failed:\n{told}")
        rest = [text for text in told.splitlines() if text.startswith("going on at")]
        return [*went_on, *rest]


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
