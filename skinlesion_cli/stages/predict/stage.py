"""Predict images with the finished ensemble: rows reach the disk as they are made, overlays on request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from skinlesion_cli.artifacts import output_checks, prediction_file
from skinlesion_cli.artifacts.bundle import Bundle, locate_model
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.reading.folders import describe, summary_lines
from skinlesion_cli.data.reading.inputs import check_named, count_quickly, expand
from skinlesion_cli.decisions.triage import LEVELS
from skinlesion_cli.decisions.triage_policy import triage_policy
from skinlesion_cli.errors import ArtifactError, ExitCode, UsageError
from skinlesion_cli.inference import loading
from skinlesion_cli.inference.lesion_verdict import GROUP_RULE, LesionVerdict
from skinlesion_cli.inference.prediction import ERROR, TABLE, Prediction
from skinlesion_cli.inference.similar import SimilarCases
from skinlesion_cli.inference.summary import Numbering, Tally
from skinlesion_cli.parallel import in_batches
from skinlesion_cli.progress import Reporter, Task
from skinlesion_cli.result import StageResult
from skinlesion_cli.stages.predict import backends, groups, review_page
from skinlesion_cli.stages.predict.groups import Lesions
from skinlesion_cli.stages.predict.settings import STDOUT, PredictSettings
from skinlesion_cli.stages.predict.worker import Numbered, Plan, Worker

_COUNTED_AHEAD = 20_000


def run(settings: PredictSettings, reporter: Reporter) -> StageResult:
    """Predict every input; an image that cannot be read costs its own row only.

    Raises
    ------
    UsageError : nothing to predict, or options that do not go together.
    ArtifactError : the model is missing or damaged, or the rows to resume are another model's.
    """
    check_named(settings.inputs)
    lesions = groups.lesions_of(settings.group)
    replaced = _check_output(settings)
    kind = (
        "jsonl" if settings.output == STDOUT else prediction_file.format_of(settings.output, settings.format)
    )
    if replaced:
        reporter.note(f"{settings.output} is a finished table of predictions; this run replaces it")
    source = locate_model(Workspace(settings.workspace), settings.model)
    bundle = Bundle.load(source)
    plan = _plan(settings, source, bundle, reporter)
    passed_over: Counter[str] = Counter()
    inputs = iter(
        expand(settings.inputs, settings.listed, follow_links=settings.follow_links, passed_over=passed_over)
    )
    first = list(islice(inputs, 1))
    if not first:
        places = ", ".join(settings.inputs) or "the list"
        others = f" (passed over: {describe(passed_over)})" if passed_over else ""
        raise UsageError(f"there are no images in {places}{others}", "Name image files, folders or archives.")
    numbering, tally = Numbering(), Tally()
    size = settings.batch or loading.default_batch(plan.runtime, settings.device)
    batches: Iterator[Sequence[Numbered]] = in_batches(numbering.number(chain(first, inputs)), size)
    if settings.shard is not None:
        batches = backends.shard_of(batches, *settings.shard)
    with (
        _sink(settings, kind, plan, size, lesions) as sink,
        output_checks.hold_mirrors(_mirrors(settings), settings.output),
        reporter.task("predicting", total=_total(settings), unit="images") as task,
    ):
        if settings.resume and isinstance(sink, prediction_file.PartialFile):
            batches = _skip_finished(sink, batches, settings, tally, task, lesions)
        for predictions in _predictions(settings, plan, bundle, batches, reporter):
            if lesions is not None:
                predictions = [replace(each, lesion=lesions.of(each.id) or None) for each in predictions]
            sink.write(prediction.to_row() for prediction in predictions)
            for prediction in predictions:
                tally.add(prediction)
            task.advance(len(predictions))
        if isinstance(sink, prediction_file.PartialFile):
            sink.finish(numbering.record() if settings.shard else None)
    verdicts: dict[str, LesionVerdict] = {}
    if lesions is not None:
        finished = map(Prediction.from_row, prediction_file.read_rows(settings.output, kind, TABLE))
        verdicts = groups.write_lesions(settings.output, bundle.calibration.rule, finished)
    reports = _report(settings, kind, plan, bundle, verdicts, reporter)
    result = _result(settings, plan, bundle, tally, passed_over, reports)
    if lesions is not None:
        result = _with_lesions(result, lesions, verdicts, groups.table_path(settings.output))
    return (
        replace(result, warnings=[f"replaced the earlier {settings.output}", *result.warnings])
        if replaced
        else result
    )


def _with_lesions(
    result: StageResult, lesions: Lesions, verdicts: dict[str, LesionVerdict], path: Path
) -> StageResult:
    """The result with what was found by lesion."""
    counts = Counter(verdict.triage or ERROR for verdict in verdicts.values())
    levels = {level: counts[level] for level in (*LEVELS, ERROR) if level != ERROR or counts[level]}
    words = ", ".join(f"{count} {level}" for level, count in levels.items() if count)
    return replace(
        result,
        headline=[*result.headline, f"{len(verdicts)} lesions: {words}", f"  {GROUP_RULE}"],
        figures={**result.figures, "lesions": len(verdicts), "lesion_triage": levels},
        artifacts=[*result.artifacts, str(path)],
        warnings=[*result.warnings, *lesions.warnings()],
    )


def _report(
    settings: PredictSettings,
    kind: str,
    plan: Plan,
    bundle: Bundle,
    verdicts: dict[str, LesionVerdict],
    reporter: Reporter,
) -> list[str]:
    if not settings.report:
        return []
    choice = loading.choose_tta(bundle.calibration, settings.tta, force=settings.force)
    facts = {"runtime": plan.runtime, "test-time views": choice.label}
    with reporter.task("writing the report"):
        return [str(review_page.write_report(settings.output, kind, bundle, plan.overlays, facts, verdicts))]


def _mirrors(settings: PredictSettings) -> list[Path]:
    """The folders beside the table that mirror the inputs: overlays, and thumbnails of the page."""
    if settings.output == STDOUT or not (settings.cam or settings.report):
        return []
    folders = [settings.output.with_name(settings.output.stem + "-cam")]
    return [*folders, review_page.thumbnails_path(settings.output)] if settings.report else folders


def _check_output(settings: PredictSettings) -> bool:
    """Refuse outputs that would replace something of the user's;
    whether an earlier table will be replaced.
    """
    if settings.output == STDOUT:
        return False
    replaces = prediction_file.check_output(settings.output, settings.inputs)
    if settings.group:
        groups.check_output(settings.output, settings.inputs)
    for overlays in _mirrors(settings)[:1]:
        output_checks.check_mirror(overlays, settings.output, settings.inputs)
    if settings.report:
        review_page.check_output(settings.output, settings.inputs)
    return replaces


def _plan(settings: PredictSettings, source: Workspace, bundle: Bundle, reporter: Reporter) -> Plan:
    choice = loading.choose_tta(bundle.calibration, settings.tta, force=settings.force)
    if choice.forced:
        reporter.note(
            f"--tta {choice.mode} is forced; the thresholds were calibrated with "
            f"{bundle.calibration.tta_mode} "
            "and their guarantees do not hold"
        )
    runtime = loading.resolve_runtime(
        bundle, settings.runtime, settings.device, reporter.note, model=settings.model
    )
    reporter.note(f"model: {bundle.model_id} ({bundle.sha256[:12]})")
    reporter.note(f"runtime: {runtime}; test-time views: {choice.label}")
    similar_sha256 = ""
    if settings.similar:
        similar_sha256 = SimilarCases.load(source, bundle, settings.similar).sha256
    overlays = None
    if settings.cam or settings.report:
        overlays = _mirrors(settings)[0]
    return Plan(
        workspace=source.root,
        model_sha256=bundle.sha256,
        runtime=runtime,
        device=settings.device,
        tta=settings.tta,
        force=settings.force,
        max_pixels=settings.max_pixels,
        overlays=overlays,
        cam_style=settings.cam_style,
        thumbnails=review_page.thumbnails_path(settings.output) if settings.report else None,
        similar=settings.similar,
        similar_sha256=similar_sha256,
    )


def _sink(settings: PredictSettings, kind: str, plan: Plan, size: int, lesions: Lesions | None) -> Any:
    if settings.output == STDOUT:
        assert settings.stream is not None
        return nullcontext(prediction_file.StreamSink(settings.stream, TABLE))
    # Paths and the distribution of work may change between two runs; what decides a row may not.
    run = {
        "model_sha256": plan.model_sha256,
        "runtime": plan.runtime,
        "device": plan.device,
        "tta": settings.tta or "as calibrated",
        "force": plan.force,
        "max_pixels": plan.max_pixels,
        "similar": [plan.similar, plan.similar_sha256] if plan.similar else None,
        "cam": settings.cam_style if plan.overlays else None,
        "report": settings.report,
        "group": lesions.identity if lesions is not None else None,
        "batch": size,
        "format": kind,
        "shard": list(settings.shard) if settings.shard else None,
        "columns": list(TABLE.names),
    }
    return prediction_file.open_partial(
        settings.output, kind, TABLE, run, resume=settings.resume, overwrite=settings.overwrite
    )


def _skip_finished(
    partial: prediction_file.PartialFile,
    batches: Iterator[Sequence[Numbered]],
    settings: PredictSettings,
    tally: Tally,
    task: Task,
    lesions: Lesions | None,
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
            if lesions is not None:
                lesions.of(prediction.id)
        task.advance(len(predictions))
    surplus = next(finished, None)
    if surplus is not None:
        raise ArtifactError(
            f"the inputs have changed: they end after {kept} images, but there is a row {surplus.row}", hint
        )
    # The generator has to come to its end, where it cuts off half a line.
    partial.keep(kept)


def _predictions(
    settings: PredictSettings,
    plan: Plan,
    bundle: Bundle,
    batches: Iterable[Sequence[Numbered]],
    reporter: Reporter,
) -> Iterator[list[Prediction]]:
    if settings.backend == "threads":
        return backends.by_threads(Worker(plan, bundle), batches, settings.workers)
    absolute = (list(backends.absolute(batch)) for batch in batches)
    return backends.by_processes(
        plan,
        absolute,
        backend=settings.backend,
        workers=settings.workers,
        address=settings.address,
        note=reporter.note,
    )


def _total(settings: PredictSettings) -> int | None:
    """The number of images, where it is quick to count."""
    if settings.listed != () or settings.shard:
        return None
    return count_quickly(settings.inputs, _COUNTED_AHEAD)


def _result(
    settings: PredictSettings,
    plan: Plan,
    bundle: Bundle,
    tally: Tally,
    passed_over: Counter[str],
    reports: list[str],
) -> StageResult:
    figures = tally.figures()
    policy = triage_policy(bundle.calibration.rule, has_gate=bundle.gate is not None)
    counted = ", ".join(f"{n} {name}" for name, n in figures["decisions"].items() if n)
    headline = [f"{tally.images} images predicted by {bundle.model_id}: {counted or 'none'}"]
    if tally.images:
        levels = ", ".join(f"{n} {level}" for level, n in figures["triage"].items() if n)
        headline.append(f"triage: {levels}; {figures['mean_forward_passes']:g} forward passes per image")
        headline.append("an image gets the first level that fits:")
        headline += [f"  {each.level}: {each.sentence}" for each in policy]
    artifacts = [] if settings.output == STDOUT else [str(settings.output)]
    if plan.overlays is not None:
        artifacts.append(str(plan.overlays))
    artifacts += reports
    headline += summary_lines(passed_over)
    warnings = []
    archives = {kind: count for kind, count in passed_over.items() if kind.endswith(" archive")}
    if archives:
        warnings.append(
            f"archives in folders are not opened ({describe(Counter(archives))}): name a zip archive as "
            "an input of "
            "its own, unpack others"
        )
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
            "tta": loading.choose_tta(bundle.calibration, settings.tta, force=settings.force).label,
            "shard": list(settings.shard) if settings.shard else None,
            "passed_over": dict(passed_over),
            "triage_policy": [asdict(each) for each in policy],
        },
        artifacts=artifacts,
        warnings=warnings,
        next_command=None,
        exit_code=ExitCode.PARTIAL if tally.failed else ExitCode.OK,
    )
