"""Predict images with the finished ensemble: rows reach the disk as they are made, overlays on request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from skinlesion_cli.artifacts import output_checks, own_files, prediction_file
from skinlesion_cli.artifacts.bundle import Bundle, locate_finished
from skinlesion_cli.artifacts.prediction_columns import ColumnSet
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.reading.folders import describe
from skinlesion_cli.data.reading.inputs import check_named, count_quickly, expand
from skinlesion_cli.errors import ArtifactError, UsageError
from skinlesion_cli.inference import loading
from skinlesion_cli.inference.lesion_verdict import LesionVerdict
from skinlesion_cli.inference.prediction import Prediction, table_of
from skinlesion_cli.inference.similar import SimilarCases
from skinlesion_cli.inference.summary import Numbering, Tally
from skinlesion_cli.parallel import in_batches
from skinlesion_cli.progress import Reporter, Task
from skinlesion_cli.report.pdf import find_chromium, print_page
from skinlesion_cli.result import StageResult
from skinlesion_cli.stages.predict import backends, groups, review_page, summary
from skinlesion_cli.stages.predict.changed_inputs import ChangedInputs
from skinlesion_cli.stages.predict.groups import Lesions
from skinlesion_cli.stages.predict.patients import Patients, patients_of
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
    replaced = check_outputs(settings)
    unfinished = prediction_file.partial_path(settings.output).exists()
    kind = (
        "jsonl" if settings.output == STDOUT else prediction_file.format_of(settings.output, settings.format)
    )
    if replaced:
        nothing_left = "nothing is left to resume, and " if settings.resume and not unfinished else ""
        reporter.note(
            f"{settings.output} is a finished table of predictions; {nothing_left}this run replaces it"
        )
    source = locate_finished(Workspace(settings.workspace), settings.model)
    bundle = Bundle.load(source)
    patients = patients_of(settings.patients, bundle, lesions)
    plan = plan_of(settings, source, bundle, reporter)
    passed_over: Counter[str] = Counter()
    inputs = iter(
        expand(settings.inputs, settings.listed, follow_links=settings.follow_links, passed_over=passed_over)
    )
    first = list(islice(inputs, 1))
    if not first:
        places = ", ".join(settings.inputs) or "the list"
        others = f" (skipped: {describe(passed_over)})" if passed_over else ""
        raise UsageError(f"there are no images in {places}{others}", "Name image files, folders or archives.")
    table, codes = table_of(bundle.classes), bundle.classes.codes
    numbering, tally = Numbering(), Tally(codes)
    size = settings.batch or loading.default_batch(plan.runtime, settings.device)
    batches: Iterator[Sequence[Numbered]] = in_batches(numbering.number(chain(first, inputs)), size)
    if settings.shard is not None:
        batches = backends.shard_of(batches, *settings.shard)
    if patients is not None:
        batches = patients.attach(batches)
    changed = ChangedInputs.last_row_of(settings)
    with (
        _sink(settings, kind, table, plan, size, lesions, patients) as sink,
        output_checks.hold_mirrors(mirrors(settings), settings.output),
        reporter.task("predicting", total=_total(settings), unit="images") as task,
    ):
        if settings.resume and isinstance(sink, prediction_file.PartialFile):
            batches = _skip_finished(sink, batches, changed, tally, task, lesions)
        for predictions in _predictions(settings, plan, bundle, batches, reporter):
            if lesions is not None:
                predictions = [replace(each, lesion=lesions.of(each.id) or None) for each in predictions]
            sink.write(prediction.to_row(codes) for prediction in predictions)
            for prediction in predictions:
                tally.add(prediction)
            task.advance(len(predictions))
        if isinstance(sink, prediction_file.PartialFile):
            sink.finish(numbering.record() if settings.shard else None)
    verdicts: dict[str, LesionVerdict] = {}
    if lesions is not None:
        finished = map(Prediction.from_row, prediction_file.read_rows(settings.output, kind, table))
        verdicts = groups.write_lesions(settings.output, bundle, finished)
    reports = write_reports(settings, kind, plan, bundle, verdicts, reporter)
    result = summary.result(settings, plan, bundle, tally, passed_over, reports)
    if lesions is not None:
        table_path = groups.table_path(settings.output)
        result = summary.with_lesions(result, bundle.classes, lesions, verdicts, table_path)
    if patients is not None:
        result = replace(result, warnings=[*result.warnings, *patients.warnings()])
    if changed.ids:
        result = replace(result, warnings=[*result.warnings, changed.warning])
    return (
        replace(result, warnings=[f"replaced the earlier {settings.output}", *result.warnings])
        if replaced
        else result
    )


def write_reports(
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
        page = review_page.write_report(settings.output, kind, bundle, plan.overlays, facts, verdicts)
    if settings.report_pdf is None:
        return [str(page)]
    with reporter.task("printing the report"):
        print_page(page, settings.report_pdf)
    return [str(page), str(settings.report_pdf)]


def mirrors(settings: PredictSettings) -> list[Path]:
    """The folders beside the table that mirror the inputs: overlays, and thumbnails of the page."""
    if settings.output == STDOUT or not (settings.cam or settings.report):
        return []
    folders = [settings.output.with_name(settings.output.stem + "-cam")]
    return [*folders, review_page.thumbnails_path(settings.output)] if settings.report else folders


def check_outputs(settings: PredictSettings) -> bool:
    """Refuse outputs that would replace something of the user's;
    whether an earlier table will be replaced.
    """
    if settings.output == STDOUT:
        return False
    replaces = prediction_file.check_output(settings.output, settings.inputs)
    if settings.group:
        groups.check_output(settings.output, settings.inputs)
    for overlays in mirrors(settings)[:1]:
        output_checks.check_mirror(overlays, settings.output, settings.inputs)
    if settings.report:
        review_page.check_output(settings.output, settings.inputs)
    if settings.report_pdf:
        find_chromium()
        output_checks.check_file(settings.report_pdf, own_files.is_pdf, "a printed page", settings.inputs)
    return replaces


def plan_of(settings: PredictSettings, source: Workspace, bundle: Bundle, reporter: Reporter) -> Plan:
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
    if bundle.metadata_calibration is not None:
        table = "--patients and " if settings.patients is not None else ""
        reporter.note(
            f"patient metadata: {table}DICOM elements; images without any are predicted from the pixels only"
        )
    similar_sha256 = ""
    if settings.similar:
        similar_sha256 = SimilarCases.load(source, bundle, settings.similar).sha256
    overlays = None
    if settings.cam or settings.report:
        overlays = mirrors(settings)[0]
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


def _sink(
    settings: PredictSettings,
    kind: str,
    table: ColumnSet,
    plan: Plan,
    size: int,
    lesions: Lesions | None,
    patients: Patients | None,
) -> Any:
    if settings.output == STDOUT:
        assert settings.stream is not None
        return nullcontext(prediction_file.StreamSink(settings.stream, table))
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
        "patients": patients.identity if patients is not None else None,
        "batch": size,
        "format": kind,
        "shard": list(settings.shard) if settings.shard else None,
        "columns": list(table.names),
    }
    return prediction_file.open_partial(
        settings.output, kind, table, run, resume=settings.resume, overwrite=settings.overwrite
    )


def _skip_finished(
    partial: prediction_file.PartialFile,
    batches: Iterator[Sequence[Numbered]],
    changed: ChangedInputs,
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
        for prediction, (_, source) in zip(predictions, batch, strict=True):
            changed.check(source)
            tally.add(prediction)
            if lesions is not None:
                lesions.of(prediction.id)
        task.skip(len(predictions))
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
