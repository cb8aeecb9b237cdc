"""Predict images with the finished ensemble: rows reach the disk as they are made, overlays on request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from skinlesion_cli.artifacts import bundle as bundles
from skinlesion_cli.artifacts import prediction_file as store
from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.reading.inputs import check_named, count_quickly, expand
from skinlesion_cli.data.reading.limits import MAX_PIXELS
from skinlesion_cli.errors import ArtifactError, ExitCode, UsageError
from skinlesion_cli.explain.overlay import STYLES as CAM_STYLES
from skinlesion_cli.inference import loading
from skinlesion_cli.inference.prediction import TABLE, Prediction
from skinlesion_cli.inference.summary import Numbering, Tally
from skinlesion_cli.parallel import in_batches
from skinlesion_cli.progress import Reporter, Task
from skinlesion_cli.stages.predict import backends, review_page
from skinlesion_cli.stages.predict.worker import Numbered, Plan, Worker
from skinlesion_cli.stages.result import StageResult

STDOUT = Path("-")
_COUNTED_AHEAD = 20_000


@dataclass(frozen=True)
class PredictConfig:
    """What to predict, with what, to where.

    `inputs` as in `data.reading.inputs.expand`; `listed` more names, such as those on stdin. `output` `-` writes JSON
    lines to `stream`. `shard` is (i, n): every n-th batch from the i-th. `batch` images go to a GPU together,
    and are the unit in which work is shared out and resumed; None: 2 on a CPU, 32 on a GPU. `model` as in
    `artifacts.bundle.locate`.
    """

    workspace: Path
    inputs: Sequence[str]
    output: Path
    listed: Iterable[str] = ()
    cam: bool = False
    cam_style: str = "overlay"
    report: bool = False
    device: str = "auto"
    runtime: str = "auto"
    tta: str | None = None
    force: bool = False
    max_pixels: int = MAX_PIXELS
    format: str | None = None
    resume: bool = False
    overwrite: bool = False
    batch: int | None = None
    backend: str = "threads"
    workers: int | None = None
    address: str | None = None
    shard: tuple[int, int] | None = None
    stream: IO[bytes] | None = None
    model: str | None = None


def run(config: PredictConfig, reporter: Reporter) -> StageResult:
    """Predict every input; an image that cannot be read costs its own row only.

    Raises
    ------
    UsageError : nothing to predict, or options that do not go together.
    ArtifactError : the model is missing or damaged, or the rows to resume are another model's.
    """
    _check(config)
    check_named(config.inputs)
    source = bundles.locate(Workspace(config.workspace), config.model)
    bundle = bundles.from_workspace(source)
    plan = _plan(config, source, bundle, reporter)
    inputs = iter(expand(config.inputs, config.listed))
    first = list(islice(inputs, 1))
    if not first:
        named = ", ".join(config.inputs) or "the list"
        raise UsageError(f"there are no images in {named}", "Name image files, folders or archives.")
    numbering, tally = Numbering(), Tally()
    size = config.batch or loading.default_batch(plan.runtime, config.device)
    batches: Iterator[Sequence[Numbered]] = in_batches(numbering.number(chain(first, inputs)), size)
    if config.shard is not None:
        batches = backends.shard_of(batches, *config.shard)
    kind = "jsonl" if config.output == STDOUT else store.format_of(config.output, config.format)
    with (
        _sink(config, kind, plan, size) as sink,
        reporter.task("predicting", total=_total(config), unit="images") as task,
    ):
        if config.resume and isinstance(sink, store.PartialFile):
            batches = _skip_finished(sink, batches, config, tally, task)
        for predictions in _predictions(config, plan, bundle, batches, reporter):
            sink.write(prediction.to_row() for prediction in predictions)
            for prediction in predictions:
                tally.add(prediction)
            task.advance(len(predictions))
        if isinstance(sink, store.PartialFile):
            sink.finish(numbering.record() if config.shard else None)
    return _result(config, plan, bundle, tally, _report(config, kind, plan, bundle, reporter))


def _report(config: PredictConfig, kind: str, plan: Plan, bundle: Bundle, reporter: Reporter) -> list[str]:
    if not config.report:
        return []
    choice = loading.choose_tta(bundle.calibration, config.tta, force=config.force)
    facts = {"runtime": plan.runtime, "test-time views": choice.label}
    with reporter.task("writing the report"):
        return [str(review_page.write_report(config.output, kind, bundle, plan.overlays, facts))]


def _check(config: PredictConfig) -> None:
    if config.output == STDOUT and (config.resume or config.format not in (None, "jsonl") or config.shard):
        raise UsageError(
            "--output - streams JSON lines; --resume, --shard and other formats need a file",
            "Example: --output results.csv --resume",
        )
    if config.report and config.shard:
        raise UsageError(
            "--report and --shard exclude each other: a shard is not the whole batch",
            "Predict all of it with --report, or merge the shards and read the table.",
        )
    if config.resume and config.overwrite:
        raise UsageError("--resume and --overwrite exclude each other")
    if config.backend not in backends.BACKENDS:
        raise UsageError(f"no backend named {config.backend!r}", "Backends: " + ", ".join(backends.BACKENDS))
    if config.address and config.backend not in ("dask", "ray"):
        raise UsageError("--address belongs to --backend dask or ray")


def _plan(config: PredictConfig, source: Workspace, bundle: Bundle, reporter: Reporter) -> Plan:
    choice = loading.choose_tta(bundle.calibration, config.tta, force=config.force)
    if choice.forced:
        reporter.note(
            f"--tta {choice.mode} is forced; the thresholds were calibrated with {bundle.calibration.tta_mode} "
            "and their guarantees do not hold"
        )
    runtime = loading.resolve_runtime(
        bundle, config.runtime, config.device, reporter.note, model=config.model
    )
    reporter.note(f"model: {bundle.model_id} ({bundle.sha256[:12]})")
    reporter.note(f"runtime: {runtime}; test-time views: {choice.label}")
    overlays = None
    if config.cam or config.report:
        if config.cam_style not in CAM_STYLES:
            raise UsageError(f"no style named {config.cam_style!r}", "Styles: " + ", ".join(CAM_STYLES))
        if config.output == STDOUT:
            raise UsageError("--cam and --report need a file as --output: what they write lies beside it")
        overlays = config.output.with_name(config.output.stem + "-cam")
    return Plan(
        workspace=source.root,
        model_sha256=bundle.sha256,
        runtime=runtime,
        device=config.device,
        tta=config.tta,
        force=config.force,
        max_pixels=config.max_pixels,
        overlays=overlays,
        cam_style=config.cam_style,
        thumbnails=review_page.thumbnails_path(config.output) if config.report else None,
    )


def _sink(config: PredictConfig, kind: str, plan: Plan, size: int) -> Any:
    if config.output == STDOUT:
        if config.stream is None:
            raise UsageError("--output - needs a stream to write to")
        return nullcontext(store.StreamSink(config.stream, TABLE))
    # Where things lie and how the work is shared out may change between two runs; what decides a row may not.
    run = {
        "model_sha256": plan.model_sha256,
        "runtime": plan.runtime,
        "device": plan.device,
        "tta": config.tta or "as calibrated",
        "force": plan.force,
        "max_pixels": plan.max_pixels,
        "cam": config.cam_style if plan.overlays else None,
        "report": config.report,
        "batch": size,
        "format": kind,
        "shard": list(config.shard) if config.shard else None,
        "columns": list(TABLE.names),
    }
    return store.open_partial(
        config.output, kind, TABLE, run, resume=config.resume, overwrite=config.overwrite
    )


def _skip_finished(
    partial: store.PartialFile,
    batches: Iterator[Sequence[Numbered]],
    config: PredictConfig,
    tally: Tally,
    task: Task,
) -> Iterator[Sequence[Numbered]]:
    """Skip the batches whose rows are complete; a batch that is there in part is predicted again."""
    hint = "Restore the inputs, or start again with --overwrite."
    finished, kept = map(Prediction.from_row, partial.finished_rows()), 0
    for batch in batches:
        predictions = list(islice(finished, len(batch)))
        for prediction, (number, source) in zip(predictions, batch, strict=False):
            if (prediction.row, prediction.id) != (number, source.id):
                raise ArtifactError(
                    f"the inputs have changed: row {number} was {prediction.id} (row {prediction.row}), "
                    f"now it is {source.id}",
                    hint,
                )
        if len(predictions) < len(batch):
            partial.keep(kept)
            yield from chain([batch], batches)
            return
        kept += len(predictions)
        for prediction in predictions:
            tally.add(prediction)
        task.advance(len(predictions))
    surplus = next(finished, None)
    if surplus is not None:
        raise ArtifactError(
            f"the inputs have changed: they end after {kept} images, but there is a row {surplus.row}", hint
        )
    # The generator has to come to its end, where it cuts off half a line.
    partial.keep(kept)


def _predictions(
    config: PredictConfig,
    plan: Plan,
    bundle: Bundle,
    batches: Iterable[Sequence[Numbered]],
    reporter: Reporter,
) -> Iterator[list[Prediction]]:
    if config.backend == "threads":
        return backends.by_threads(Worker(plan, bundle), batches, config.workers)
    absolute = (list(backends.absolute(batch)) for batch in batches)
    return backends.by_processes(
        plan,
        absolute,
        backend=config.backend,
        workers=config.workers,
        address=config.address,
        note=reporter.note,
    )


def _total(config: PredictConfig) -> int | None:
    """How many images there are, where that is quick to tell."""
    if config.listed != () or config.shard:
        return None
    return count_quickly(config.inputs, _COUNTED_AHEAD)


def _result(
    config: PredictConfig, plan: Plan, bundle: Bundle, tally: Tally, reports: list[str]
) -> StageResult:
    figures = tally.figures()
    counted = ", ".join(f"{n} {name}" for name, n in figures["decisions"].items() if n)
    headline = [f"{tally.images} images predicted by {bundle.model_id}: {counted or 'none'}"]
    if tally.images:
        levels = ", ".join(f"{n} {level}" for level, n in figures["triage"].items() if n)
        headline.append(f"triage: {levels}; {figures['mean_forward_passes']:g} forward passes per image")
    artifacts = [] if config.output == STDOUT else [str(config.output)]
    if plan.overlays is not None:
        artifacts.append(str(plan.overlays))
    artifacts += reports
    warnings = []
    if tally.failed:
        warnings.append(f"{tally.failed} images could not be read: {tally.name_failures()}")
    if tally.flagged:
        warnings.append(
            f"{tally.flagged} images failed a check of the quality gate and are flagged for review"
        )
    return StageResult(
        command="predict",
        headline=headline,
        figures=figures
        | {
            "model": bundle.model_id,
            "model_sha256": bundle.sha256,
            "runtime": plan.runtime,
            "tta": loading.choose_tta(bundle.calibration, config.tta, force=config.force).label,
            "shard": list(config.shard) if config.shard else None,
        },
        artifacts=artifacts,
        warnings=warnings,
        next_command=None,
        exit_code=ExitCode.PARTIAL if tally.failed else ExitCode.OK,
    )
