"""Kill `predict` at random moments, resume, and compare the final table with an undisturbed one.

python examples/benchmarks/kills.py WORK_FOLDER --kills 50
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import common


def main() -> None:
    """Kill so often, then let it finish."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--images", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder, generator = options.folder, random.Random(options.seed)
    tiny = common.workspace(folder / "tiny-ws", (("tiny", 32),))
    small = common.images(folder / "small", 200, 96, 72)
    names = folder / "kills.txt"
    names.write_text("".join(f"{small[index % len(small)]}\n" for index in range(options.images)))
    whole, killed = folder / "whole.csv", folder / "killed.csv"
    took_s = common.predict(f"@{names}", "-o", whole, "-w", tiny, "--overwrite").seconds
    killed.unlink(missing_ok=True)
    command = [sys.executable, "-m", "skinlesion_cli", "predict", f"@{names}", "-o", str(killed)]
    command += ["-w", str(tiny), "--resume", "--quiet"]
    environment = os.environ | {"PYTHONPATH": str(common.ROOT)}
    kills = attempts = 0
    # Any moment counts: while it starts, while it goes past finished rows, while it predicts.
    longest_s = 1.0 + 1.5 * took_s / options.kills
    while kills < options.kills and not killed.exists():
        attempts += 1
        process = subprocess.Popen(
            command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        time.sleep(generator.uniform(0.05, longest_s))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    with killed.open(newline="") as file:
        rows = [int(row["row"]) for row in csv.DictReader(file)]
    common.report(
        kills=kills,
        images=options.images,
        undisturbed_s=took_s,
        same_bytes=killed.read_bytes() == whole.read_bytes(),
        lost=options.images - len(set(rows)),
        repeated=len(rows) - len(set(rows)),
    )


if __name__ == "__main__":
    main()
