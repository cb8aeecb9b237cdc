"""How fast each part of prediction is on this machine, and how long a folder will take."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from skinlesion_cli.artifacts import bundle as bundles
from skinlesion_cli.artifacts import prediction_columns
from skinlesion_cli.artifacts.calibration import Calibration
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.preprocess import decode_target_px, to_input
from skinlesion_cli.data.quality import statistics
from skinlesion_cli.data.reading.images import read_image
from skinlesion_cli.errors import UsageError, name_items
from skinlesion_cli.inference import loading, tta
from skinlesion_cli.inference.engine import Engine
from skinlesion_cli.parallel import available_cores, in_order
from skinlesion_cli.progress import Reporter
from skinlesion_cli.stages.result import StageResult, Table

_SIZE_PX = (600, 450)
_BATCH = 4


@dataclass(frozen=True)
class BenchConfig:
    """`sample` are image files to measure on; without, one is generated at 600 x 450. `images`: to predict."""

    workspace: Path
    sample: Sequence[Path] = ()
    images: int = 10_000
    seconds: float = 3.0
    runtime: str = "auto"
    device: str = "auto"
    model: str | None = None


def run(config: BenchConfig, reporter: Reporter) -> StageResult:
    """Measure decoding, the networks, all views, maps and writing, each alone; then the whole, by threads.

    With an adaptive model the whole is measured twice: with as many looks an image as `calibrate` measured on
    validation images (a generated image says nothing of that, and a handful of others little), and with all.
    """
    missing = [str(path) for path in config.sample if not path.is_file()]
    if missing:
        raise UsageError(f"there is no file {name_items(missing)}")
    bundle = bundles.from_workspace(bundles.locate(Workspace(config.workspace), config.model))
    runtime = loading.settle_runtime(bundle, config.runtime, config.device, reporter.note, model=config.model)
    engine = loading.load_engine(bundle, config.device, runtime)
    if runtime == "torch":
        import torch

        torch.set_num_threads(1)
    contents = [path.read_bytes() for path in config.sample] or [_generated()]
    target_px = max(decode_target_px(member.preprocessing) for member in engine.members)
    images = [read_image(content, target_px=target_px) for content in contents]
    batch = [images[index % len(images)] for index in range(_BATCH)]
    shares = _look_shares(bundle.calibration)
    ways = {
        engine.tta_mode: engine if shares is None else _with(engine, _AsMeasured(engine.stopping, shares))
    }
    if engine.stopping is not None:
        ways["all looks"] = _with(engine, None)
    first = engine.members[0]
    pixels = np.stack([to_input(image, first.preprocessing) for image in batch])
    output = engine.run(batch)
    row = prediction_columns.empty_row() | {f"p_{name}": 0.123 for name in ("MEL", "NV", "BCC")}
    parts: dict[str, tuple[Callable[[], Any], int]] = {
        "decode": (lambda: [read_image(content, target_px=target_px) for content in contents], len(contents)),
        "quality statistics": (lambda: [statistics(image) for image in images], len(images)),
        "turn one view": (lambda: tta.apply("rot90", pixels), _BATCH),
    }
    for member in engine.members:
        seen = np.stack([to_input(image, member.preprocessing) for image in batch])
        parts[f"network {member.name}, one view"] = (partial(member.runtime.logits, seen), _BATCH)
    for name, way in ways.items():
        parts[f"all networks, {name}"] = (partial(way.run, batch), _BATCH)
        parts[f"all networks, {name}, with maps"] = (partial(way.run, batch, keep_features=True), _BATCH)
    parts["decide"] = (lambda: bundle.calibration.decide(output.probabilities), _BATCH)
    parts["write a CSV row"] = (lambda: prediction_columns.encode(row, "csv"), 1)
    speeds: dict[str, float] = {}
    counts = sorted({1, available_cores()})
    whole: dict[str, dict[int, float]] = {name: {} for name in ways}
    with reporter.task("measuring", total=len(parts) + len(ways) * len(counts), unit="parts") as task:
        for name, (work, count) in parts.items():
            task.describe(name)
            speeds[name] = _images_per_s(work, count, config.seconds / 3)
            task.advance()
        for name, way in ways.items():
            for count in counts:
                task.describe(f"whole, {name}, {count} threads")
                whole[name][count] = _whole(way, contents, target_px, count, config.seconds)
                task.advance()
    threads = whole[engine.tta_mode]
    best = max(threads, key=lambda count: threads[count])
    duration_s = config.images / threads[best]
    rows = [[name, f"{speed:,.1f}"] for name, speed in speeds.items()]
    rows += [[f"whole, {n}, {count} threads", f"{v:,.1f}"] for n in ways for count, v in whole[n].items()]
    headline = [
        f"{runtime}, {best} threads of one image each: {threads[best]:.1f} images/s; "
        f"{config.images:,} images take about {_spoken(duration_s)}",
        "One image a thread, and as many threads as cores: on a CPU that beats several threads an image.",
    ]
    figures: dict[str, Any] = {
        "runtime": runtime,
        "tta": engine.tta_mode,
        "cores": available_cores(),
        "threads": best,
        "images_per_s": speeds,
        "whole_images_per_s": _named(threads),
        "images": config.images,
        "seconds": duration_s,
        "adaptive": None,
    }
    if engine.stopping is not None:
        mean_looks = None if shares is None else float(np.dot(shares, np.arange(1, len(shares) + 1)))
        every_s = config.images / max(whole["all looks"].values())
        looks = "as many looks as this sample asks for"
        if mean_looks is not None:
            looks = (
                f"{mean_looks:.2f} of {len(engine.stopping.looks.order)} looks, the mean on validation images"
            )
        headline.insert(1, f"That is with {looks}; with all looks they take about {_spoken(every_s)}.")
        figures["adaptive"] = {
            "mean_looks": mean_looks,
            "n_looks": len(engine.stopping.looks.order),
            "sample_mean_passes": float(output.passes.mean()),
            "all_looks_images_per_s": _named(whole["all looks"]),
            "all_looks_seconds": every_s,
        }
    return StageResult(
        command="bench",
        headline=headline,
        figures=figures,
        tables=[Table("Images per second", ["part", "images/s"], rows)],
    )


def _named(threads: Mapping[int, float]) -> dict[str, float]:
    return {str(count): speed for count, speed in threads.items()}


def _look_shares(calibration: Calibration) -> np.ndarray | None:
    """Shares of validation images that needed 1, 2, ... looks; None without a stopping rule."""
    stopping = calibration.stopping or {}
    # Earlier versions knew looks at a view only.
    shares = stopping.get("look_shares") or stopping.get("view_shares")
    return None if not shares else np.array(shares, dtype=np.float64) / np.sum(shares)


class _AsMeasured:
    """Stops after as many looks as calibration measured, whatever an image shows; the shares hold over many."""

    def __init__(self, rule: Any, shares: np.ndarray) -> None:
        self.weights, self.looks, self.over = rule.weights, rule.looks, np.cumsum(shares)
        self.generator, self.lock = np.random.default_rng(0), Lock()

    def settled(self, probabilities: np.ndarray, n_looks: int) -> np.ndarray:
        """bool (n,): with the chance that an image that needed so many looks needed no more."""
        before = self.over[n_looks - 2] if n_looks > 1 else 0.0
        chance = (self.over[n_looks - 1] - before) / max(1.0 - before, 1e-9)
        with self.lock:
            return self.generator.random(len(probabilities)) < chance


def _with(engine: Engine, stopping: _AsMeasured | None) -> Engine:
    """The same engine, stopping otherwise."""
    other = copy(engine)
    other.stopping = stopping
    return other


def _generated() -> bytes:
    coarse = np.random.default_rng(0).integers(60, 220, (45, 60, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize(_SIZE_PX, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def _images_per_s(work: Callable[[], Any], images: int, seconds: float) -> float:
    """By the median of repeated calls: other load on the machine disturbs it less than a mean."""
    work()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return images / float(np.median(times))


def _whole(engine: Any, contents: Sequence[bytes], target_px: int, threads: int, seconds: float) -> float:
    def one(batch: Sequence[bytes]) -> int:
        engine.run([read_image(content, target_px=target_px) for content in batch])
        return len(batch)

    def endless() -> Any:
        while time.perf_counter() < end:
            yield [contents[index % len(contents)] for index in range(_BATCH)]

    started = time.perf_counter()
    end = started + seconds
    done = sum(in_order(endless(), one, threads=threads))
    return done / (time.perf_counter() - started)


def _spoken(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
