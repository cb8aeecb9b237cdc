"""What a command loses to its own threads on a machine that does other work.

    python examples/benchmarks/busy_machine.py WORK --loops 6 --rounds 3

Starts busy loops, then each command by turns as it is and with OMP_NUM_THREADS=1, loops and commands at the
same priority. Prints the median wall time of both and the median ratio of the pairs: a command that
shares the machine well has a ratio near 1, one whose threads wait for each other several times that.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from common import ROOT, images, workspace

NICE = 10


def commands(work: Path) -> dict[str, list[str]]:
    """By name, each in workspaces and on images that are made once."""
    from tests.support import made_workspace

    stored = work / "stored"
    if not stored.exists():
        made_workspace.make(stored, n_lesions=2000)
    labelled = work / "labelled"
    if not (labelled / "dataset" / "split.json").exists():
        sys.path.insert(0, str(ROOT / "examples"))
        import make_images

        make_images.make(work / "labelled-images", 150, seed=3, width=300, height=225, official=True)
        source = ["--from", str(work / "labelled-images"), "--split", "grouped", "-w", str(labelled)]
        wall_s(["download", *source], work)
    train = [
        "train",
        "--arch",
        "efficientnet_lite0",
        "--weights",
        "none",
        "--recipe",
        "fast",
        "--epochs",
        "1",
    ]
    train += ["--epochs", "1", "-w", str(labelled)]
    networks = ["-w", str(workspace(work / "networks", [("efficientnet_lite0", 128)] * 3))]
    own, some, out = ["-w", str(stored)], str(images(work / "images", 24)[0].parent), str(work / "out")
    return {
        "select": ["select", some, "-n", "5", "-o", f"{out}.csv", *networks],
        "explain": ["explain", some, "-o", f"{out}-maps", *networks],
        "explain --method gradcam++": [
            "explain",
            some,
            "-o",
            f"{out}-cam",
            *networks,
            "--method",
            "gradcam++",
        ],
        "export": ["export", "--member", "efficientnet_lite0-fold0", *networks],
        "train": [*train, "--fresh"],
        "train --dry-run": [*train, "--fresh", "--dry-run"],
        "ensemble": ["ensemble", *own],
        "calibrate": ["calibrate", *own],
        "evaluate": ["evaluate", *own],
    }


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """So many processes that compute without end."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def wall_s(arguments: list[str], work: Path, **variables: str) -> float:
    """Wall time of one command in a process of its own."""
    without = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    started_s = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "skinlesion_cli", *arguments],
        env=without | {"PYTHONPATH": paths, "SKINLESION_CACHE": str(work / "cache")} | variables,
        cwd=work,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: exit {done.returncode}\n{done.stderr}")
    return time.perf_counter() - started_s


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--loops", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", help="name of a command; repeatable")
    options = parser.parse_args()
    os.nice(NICE)
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    for name, arguments in commands(work).items():
        if options.only and name not in options.only:
            continue
        wall_s(arguments, work)
        with busy(options.loops):
            pairs = [
                (wall_s(arguments, work), wall_s(arguments, work, OMP_NUM_THREADS="1"))
                for _ in range(options.rounds)
            ]
        figures = {
            "command": name,
            "wall_s": round(median(ours for ours, _ in pairs), 1),
            "one_thread_s": round(median(theirs for _, theirs in pairs), 1),
            "ratio": round(median(ours / theirs for ours, theirs in pairs), 2),
        }
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
