"""How fast each part of prediction is on this machine, and how long a given number of images will take."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Annotated, Any

import numpy as np
from PIL import Image
from pydantic import Field, PositiveInt

from skinlesion_cli.artifacts.bundle import Bundle, locate_finished
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.settings import StageSettings, one_of
from skinlesion_cli.data.preprocess import to_input
from skinlesion_cli.data.quality import statistics
from skinlesion_cli.decisions.adaptive.forward_passes import ONE_STEP
from skinlesion_cli.decisions.adaptive.stopping import StoppingRule, stored_step_shares
from skinlesion_cli.errors import UsageError, name_items
from skinlesion_cli.inference import tta
from skinlesion_cli.inference.prediction import table_of
from skinlesion_cli.inference.predictor import Predictor
from skinlesion_cli.inference.runtimes.registry import RUNTIMES
from skinlesion_cli.inference.sources import Source, sources_of
from skinlesion_cli.models.devices import NAMES as DEVICES
from skinlesion_cli.parallel import available_cores, in_order
from skinlesion_cli.progress import Reporter
from skinlesion_cli.result import StageResult, Table, counted

_SIZE_PX = (600, 450)
_BATCH = 4
_ALL = "all steps"


class BenchSettings(StageSettings):
    """`sample` are image files to measure on; without, one is generated at 600 x 450. `images`:
    to predict.
    """

    workspace: Path
    sample: tuple[Path, ...] = ()
    images: PositiveInt = 10_000
    seconds: Annotated[float, Field(ge=0.1)] = 3.0
    runtime: Annotated[str, one_of(RUNTIMES, also=("auto",))] = "auto"
    device: Annotated[str, one_of(DEVICES)] = "auto"
    model: str | None = None


def run(settings: BenchSettings, reporter: Reporter) -> StageResult:
    """Measure decoding, the networks, all views, maps and writing, each alone; then all of prediction, by
    threads.

    With an adaptive model prediction is measured twice: with as many steps per image as `calibrate` measured
    on validation images (a generated image says nothing about that, and a handful of others little),
    and with all.
    """
    missing = [str(path) for path in settings.sample if not path.is_file()]
    if missing:
        raise UsageError(
            f"there is no file {name_items(missing)}",
            "Name image files, or none to measure with a generated image.",
        )
    bundle = Bundle.load(locate_finished(Workspace(settings.workspace), settings.model))
    predictor = Predictor.of_bundle(
        bundle, device=settings.device, runtime=settings.runtime, model=settings.model, note=reporter.note
    )
    engine = predictor.engine
    if engine.runtime == "torch":
        import torch

        torch.set_num_threads(1)
    contents = [path.read_bytes() for path in settings.sample] or [_generated()]
    sources = [source for index, content in enumerate(contents) for source in sources_of(content, index)]
    images = [predictor.decode(source) for source in sources]
    batch = [images[index % len(images)] for index in range(_BATCH)]
    rule = bundle.calibration.stopping_rule if engine.stopping is not None else None
    shares = None if rule is None else stored_step_shares(bundle.calibration.stopping or {})
    ways = {
        engine.tta_mode: predictor
        if rule is None or shares is None
        else predictor.stopping_by(_AsMeasured(rule, shares))
    }
    if rule is not None:
        ways[_ALL] = predictor.stopping_by(None)
    first = engine.members[0]
    pixels = np.stack([to_input(image, first.preprocessing) for image in batch])
    output = engine.run(batch)
    table = table_of(bundle.classes)
    row = predictor.run(sources[:1]).predictions[0].to_row(bundle.classes.codes)
    parts: dict[str, tuple[Callable[[], Any], int]] = {
        "decode": (lambda: [predictor.decode(source) for source in sources], len(sources)),
        "quality statistics": (lambda: [statistics(image) for image in images], len(images)),
        "turn one view": (lambda: tta.apply("rot90", pixels), _BATCH),
    }
    for member in engine.members:
        seen = np.stack([to_input(image, member.preprocessing) for image in batch])
        parts[f"network {member.name}, one view"] = (partial(member.runtime.logits, seen), _BATCH)
    for name, way in ways.items():
        parts[f"all networks, {name}"] = (partial(way.engine.run, batch), _BATCH)
        parts[f"all networks, {name}, with maps"] = (
            partial(way.engine.run, batch, keep_layers=True),
            _BATCH,
        )
    parts["decide"] = (lambda: bundle.calibration.decide(output.probabilities), _BATCH)
    parts["write a CSV row"] = (lambda: table.encode(row, "csv"), 1)
    speeds: dict[str, float] = {}
    counts = sorted({1, available_cores()})
    whole: dict[str, dict[int, float]] = {name: {} for name in ways}
    with reporter.task("measuring", total=len(parts) + len(ways) * len(counts), unit="parts") as task:
        for name, (work, count) in parts.items():
            task.describe(name)
            speeds[name] = _images_per_s(work, count, settings.seconds / 3)
            task.advance()
        for name, way in ways.items():
            for count in counts:
                task.describe(f"end to end, {name}, {counted(count, 'thread')}")
                whole[name][count] = _whole(way, sources, count, settings.seconds)
                task.advance()
    threads = whole[engine.tta_mode]
    best = max(threads, key=lambda count: threads[count])
    duration_s = settings.images / threads[best]
    rows = [[name, f"{speed:,.1f}"] for name, speed in speeds.items()]
    rows += [
        [f"end to end, {name}, {counted(count, 'thread')}", f"{speed:,.1f}"]
        for name in ways
        for count, speed in whole[name].items()
    ]
    headline = [
        f"{engine.runtime}, {counted(best, 'thread')} with one image each: {threads[best]:.3g} images/s; "
        f"{settings.images:,} images take about {_spoken(duration_s)}",
        "One image per thread and one thread per core: on a CPU that is faster than several threads per "
        "image.",
    ]
    figures: dict[str, Any] = {
        "runtime": engine.runtime,
        "tta": engine.tta_mode,
        "cores": available_cores(),
        "threads": best,
        "images_per_s": speeds,
        "whole_images_per_s": _by_count(threads),
        "images": settings.images,
        "seconds": duration_s,
        "adaptive": None,
    }
    if rule is not None:
        mean_steps = None if shares is None else float(np.dot(shares, np.arange(1, len(shares) + 1)))
        every_s = settings.images / max(whole[_ALL].values())
        taken = "as many steps as this sample needs"
        if mean_steps is not None:
            taken = f"{mean_steps:.2f} of {rule.steps.n} steps ({ONE_STEP}), the mean on validation images"
        headline.insert(1, f"That is with {taken}; with all steps they take about {_spoken(every_s)}.")
        figures["adaptive"] = {
            "mean_steps": mean_steps,
            "n_steps": rule.steps.n,
            "sample_mean_forward_passes": float(output.forward_passes.mean()),
            "all_steps_images_per_s": _by_count(whole[_ALL]),
            "all_steps_seconds": every_s,
        }
    return StageResult(
        command="bench",
        headline=headline,
        figures=figures,
        tables=[Table("Images per second", ["part", "images/s"], rows)],
    )


def _by_count(threads: Mapping[int, float]) -> dict[str, float]:
    return {str(count): speed for count, speed in threads.items()}


class _AsMeasured:
    """Stops after as many steps as calibration measured, whatever an image shows;
    the shares hold over many.
    """

    def __init__(self, rule: StoppingRule, shares: np.ndarray) -> None:
        self.weights, self.steps, self.over = rule.weights, rule.steps, np.cumsum(shares)
        self.generator, self.lock = np.random.default_rng(0), Lock()

    def converged(self, probabilities: np.ndarray, n_steps: int) -> np.ndarray:
        """bool (n,): with the probability that an image that needed so many steps needed no more."""
        before = self.over[n_steps - 2] if n_steps > 1 else 0.0
        chance = (self.over[n_steps - 1] - before) / max(1.0 - before, 1e-9)
        with self.lock:
            result: np.ndarray = self.generator.random(len(probabilities)) < chance
            return result


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


def _whole(predictor: Predictor, sources: Sequence[Source], threads: int, seconds: float) -> float:
    def one(batch: Sequence[Source]) -> int:
        return len(predictor.run(batch).predictions)

    def endless() -> Any:
        while time.perf_counter() < end:
            yield [sources[index % len(sources)] for index in range(_BATCH)]

    started = time.perf_counter()
    end = started + seconds
    done = sum(in_order(endless(), one, threads=threads))
    return done / (time.perf_counter() - started)


def _spoken(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
