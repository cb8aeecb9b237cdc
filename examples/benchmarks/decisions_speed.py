"""How long `ensemble`, `calibrate` and `evaluate` take on 12,000 stored predictions,
bootstrap of 2,000 included.

    python examples/benchmarks/decisions_speed.py

The predictions are made up (three members, 8 views); each command runs as a user would run it, in a process
of its own. Wall time and processor time are both shown: on a busy machine the first says little.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import pandas as pd

from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.inference.tta import MODES
from skinlesion_cli.taxonomy.shipped import shipped

ISIC2018 = shipped("isic2018")

ROOT = Path(__file__).resolve().parents[2]
PREVALENCE = np.array([0.11, 0.67, 0.05, 0.033, 0.11, 0.012, 0.015])


def make(workspace: Workspace, n_images: int, members: int) -> None:
    """Made-up predictions of two parts, about 1.3 images a lesion."""
    for part, seed in (("val", 1), ("test", 2)):
        generator = np.random.default_rng(seed)
        lesion = np.sort(generator.integers(0, int(n_images / 1.3), n_images))
        label = generator.choice(7, int(n_images / 1.3), p=PREVALENCE / PREVALENCE.sum())[lesion]
        table = pd.DataFrame(
            {
                "id": [f"{part}{row:06d}" for row in range(n_images)],
                "lesion_id": [f"{part}{number}" for number in lesion],
                "label": np.array(ISIC2018.codes)[label],
                "fold": "",
            }
        )
        truth = np.eye(7)[label] * 3.0 + generator.normal(0, 1.0, (n_images, 7)) + np.log(PREVALENCE)
        for number in range(members):
            name = f"member{number}"
            logits = truth[:, None] + generator.normal(0, 0.5, (n_images, 8, 7))
            raised = np.exp(logits - logits.max(axis=2, keepdims=True))
            views = (raised / raised.sum(axis=2, keepdims=True)).astype(np.float32)
            Predictions(table, views, MODES["d4"], name, part, classes=ISIC2018).save(
                workspace.predictions(name, part), inputs={"split": "0" * 64, "checkpoint": f"{number}" * 64}
            )
            workspace.checkpoint(name).write_text("{}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--members", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        make(workspace, arguments.images, arguments.members)
        print(f"{arguments.images:,} images a part, {arguments.members} members, 8 views")
        for command in ("ensemble", "calibrate", "evaluate"):
            used, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            subprocess.run(
                [sys.executable, "-m", "skinlesion_cli", command, "-w", folder, "-q"],
                check=True,
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
            )
            now = resource.getrusage(resource.RUSAGE_CHILDREN)
            processor = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
            print(f"{command:10s} {time.monotonic() - started:5.1f} s wall, {processor:5.1f} s processor")


if __name__ == "__main__":
    main()
