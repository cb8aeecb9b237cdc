"""What the benchmarks share: workspaces with random weights, generated images,
a child process that is watched.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
PUBLISHED = (("resnet50", 224), ("densenet121", 224), ("efficientnet_b3", 300))
LIGHT = (("efficientnet_lite0", 224), ("efficientnet_lite1", 224), ("efficientnet_lite2", 224))


def workspace(root: Path, networks: Sequence[tuple[str, int]], *, export: bool = True) -> Path:
    """An ensemble with random weights: right for time, meaningless for decisions. Made once."""
    from skinlesion_cli.progress import SilentReporter
    from skinlesion_cli.stages import export as exporting
    from tests.support import tiny_models

    if not (root / "calibration" / "calibration.json").exists():
        sizes = [size for _, size in networks]
        archs = tuple(arch for arch, _ in networks)
        tiny_models.make_workspace(root, archs, size_px=sizes, spread=None)
        if export:
            exporting.run(exporting.ExportSettings(workspace=root), SilentReporter())
    return root


def export_unjudged(root: Path, kind: str) -> None:
    """Exports in fewer bits without the measurement that `skinlesion export` demands:
    only their time is asked.
    """
    from skinlesion_cli.artifacts import exports
    from skinlesion_cli.artifacts.bundle import Bundle
    from skinlesion_cli.artifacts.workspace import Workspace
    from skinlesion_cli.models.network import restore_network
    from skinlesion_cli.models.onnx_export import to_onnx

    for member in Bundle.load(Workspace(root)).members:
        network = restore_network(member)
        model = to_onnx(network, member.preprocessing.input_size_px)
        classifier = network.classifier.weight.detach().numpy()
        exports.Export(kind, model, classifier, {}).save_for(member)


def images(folder: Path, count: int, width: int = 600, height: int = 450) -> list[Path]:
    """Generated JPEG photographs, made once."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:05d}.jpg" for index in range(count)]
    generator = np.random.default_rng(0)
    for path in paths:
        coarse = generator.integers(60, 220, (max(2, height // 10), max(2, width // 10), 3), dtype=np.uint8)
        if not path.exists():
            Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path, quality=90)
    return paths


@dataclass(frozen=True)
class Spent:
    """Wall time, and processor time of all threads and finished children:
    the latter hardly minds a busy machine.
    """

    wall_s: float
    cpu_s: float


def best(work: Callable[[], object], rounds: int) -> Spent:
    """The least of several runs, of each figure."""
    found = []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), _cpu_s()
        work()
        found.append((time.perf_counter() - wall, _cpu_s() - cpu))
    return Spent(*map(min, zip(*found, strict=True)))


def _cpu_s() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def compared(ways: Mapping[str, Spent], rival: str, images: int) -> dict[str, object]:
    """Images per second of each way, and how many times faster than the rival it is."""
    return {
        "images": images,
        "images_per_s": {name: round(images / spent.wall_s, 3) for name, spent in ways.items()},
        "times_faster": {n: round(ways[rival].wall_s / s.wall_s, 2) for n, s in ways.items() if n != rival},
        "cpu_s_an_image": {name: round(spent.cpu_s / images, 4) for name, spent in ways.items()},
        "times_less_cpu": {n: round(ways[rival].cpu_s / s.cpu_s, 2) for n, s in ways.items() if n != rival},
    }


@dataclass(frozen=True)
class Watched:
    """A finished child: its wall time, the time to its first output line, and its peak resident memory."""

    seconds: float
    first_line_s: float
    peak_mib: float


def predict(*arguments: object, wait_for_line: bool = False, some_fail: bool = False) -> Watched:
    """Run `skinlesion predict` and watch it; with `some_fail` inputs that cannot be read are in order."""
    started = time.perf_counter()
    first = float("nan")
    process = subprocess.Popen(
        [sys.executable, "-m", "skinlesion_cli", "predict", "--quiet", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    peak = _PeakMemory(process.pid)
    for _ in process.stdout:
        if wait_for_line and first != first:
            first = time.perf_counter() - started
    process.wait()
    seconds = time.perf_counter() - started
    if process.returncode and not (some_fail and process.returncode == 3):
        raise SystemExit(f"predict ended with exit code {process.returncode}")
    return Watched(seconds, first, peak.mib())


class _PeakMemory(threading.Thread):
    """Watches the peak resident memory of a process on Linux.
    (What wait4 tells of a child is at least the memory
    of the parent that it was forked from.)"""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.status, self.found_kib = Path(f"/proc/{pid}/status"), 0
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError, StopIteration):
            while True:
                lines = self.status.read_text().splitlines()
                line = next(line for line in lines if line.startswith("VmHWM:"))
                self.found_kib = int(line.split()[1])
                time.sleep(0.02)

    def mib(self) -> float:
        """After the process has ended."""
        self.join()
        return self.found_kib / 1024


def report(**figures: object) -> None:
    """One JSON object on stdout, with what the machine was doing."""
    machine = {"cores": os.cpu_count(), "load": [round(load, 2) for load in os.getloadavg()]}
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}
    print(json.dumps(rounded | {"machine": machine}, indent=1))
