"""Predict the images that arrive in a folder, until somebody ends it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from skinlesion_cli.artifacts import output_checks, prediction_file
from skinlesion_cli.artifacts.bundle import Bundle, locate_finished
from skinlesion_cli.artifacts.growing_table import open_growing
from skinlesion_cli.artifacts.prediction_file import PartialFile
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.reading.arrivals import Arrivals
from skinlesion_cli.data.reading.folders import summary_lines
from skinlesion_cli.data.reading.inputs import ImageInput
from skinlesion_cli.errors import UsageError, name_items
from skinlesion_cli.inference import loading
from skinlesion_cli.inference.prediction import table_of
from skinlesion_cli.inference.summary import Tally
from skinlesion_cli.parallel import in_batches
from skinlesion_cli.progress import Reporter
from skinlesion_cli.result import counted
from skinlesion_cli.stages.predict import backends
from skinlesion_cli.stages.predict.patients import patients_of
from skinlesion_cli.stages.predict.settings import STDOUT, PredictSettings
from skinlesion_cli.stages.predict.stage import check_outputs, mirrors, plan_of, write_reports
from skinlesion_cli.stages.predict.worker import Worker

INTERVAL_S = 5.0


def run(
    settings: PredictSettings,
    reporter: Reporter,
    *,
    interval_s: float = INTERVAL_S,
    pause: Callable[[float], object] = time.sleep,
) -> NoReturn:
    """Look into the folder every `interval_s` seconds; predict what is new and complete, each image once.

    The table grows row by row under its final name, and is the record of what was predicted: started again
    with the same output, it continues where it ended. It never returns; a signal ends it.

    Raises
    ------
    UsageError : it is not exactly one folder, or options that do not go together.
    ArtifactError : the model is missing or damaged, or the table holds another model's rows.
    """
    folder = _folder(settings)
    check_outputs(settings)
    kind = prediction_file.format_of(settings.output, settings.format)
    source = locate_finished(Workspace(settings.workspace), settings.model)
    bundle = Bundle.load(source)
    patients = patients_of(settings.patients, bundle, None)
    for warning in patients.words_not_understood() if patients is not None else ():
        reporter.note(warning)
    plan = plan_of(settings, source, bundle, reporter)
    worker = Worker(plan, bundle)
    size = settings.batch or loading.default_batch(plan.runtime, settings.device)
    recorded_until_ns = settings.output.stat().st_mtime_ns if settings.output.exists() else None
    with (
        open_growing(settings.output, kind, table_of(bundle.classes), worker.predictor.origin) as (
            table,
            known,
        ),
        output_checks.hold_mirrors(mirrors(settings), settings.output),
    ):
        n_rows = len(known)
        if patients is not None:
            patients.remember(known)
        arrivals = Arrivals(folder, known, recorded_until_ns)
        del known
        reporter.note(
            f"watching {folder} until Ctrl-C; an image is predicted once its file is complete; "
            f"{counted(n_rows, 'image')} predicted before"
        )
        look = _Look(arrivals, reporter)
        # Ended while its page waited, the watch writes it when it is started again.
        page = _Page(lambda: write_reports(settings, kind, plan, bundle, {}, reporter), outdated=n_rows > 0)
        while True:
            sources = look()
            if patients is not None:
                sources = [patients.informed(image) for image in sources]
            if sources:
                _predict(worker, table, sources, n_rows, size, settings, reporter)
                n_rows += len(sources)
                page.outdated = True
            page.write_when_due()
            pause(interval_s)
            page.waited_s += interval_s


class _Page:
    """The page of `--report`. It is made anew of all rows, so that with many of them it has to wait: at most
    a tenth of the time is spent on it.
    """

    def __init__(self, write: Callable[[], object], *, outdated: bool) -> None:
        self.write, self.outdated = write, outdated
        self.waited_s, self._took_s = 0.0, 0.0

    def write_when_due(self) -> None:
        if self.outdated and self.waited_s >= 9 * self._took_s:
            started = time.monotonic()
            self.write()
            self.outdated, self.waited_s, self._took_s = False, 0.0, time.monotonic() - started


class _Look:
    """Looks for new images, and notes once what is not predicted."""

    def __init__(self, arrivals: Arrivals, reporter: Reporter) -> None:
        self.arrivals, self.reporter = arrivals, reporter
        self._unreadable: dict[str, str] = {}
        self._passed_over: Counter[str] = Counter()

    def __call__(self) -> list[ImageInput]:
        """The new images; none while the folder cannot be read."""
        arrivals, folder = self.arrivals, self.arrivals.folder
        try:
            sources = arrivals.look()
        except OSError as error:
            self._note_unreadable({"": error.strerror or str(error)})
            return []
        self._note_unreadable(arrivals.unreadable)
        if arrivals.changed:
            self.reporter.note(
                "changed after they were predicted, and not predicted again (a new photograph needs a "
                "new name): " + name_items(arrivals.changed)
            )
        for line in summary_lines(arrivals.passed_over - self._passed_over):
            self.reporter.note(f"{folder}: {line}")
        self._passed_over = arrivals.passed_over.copy()
        return sources

    def _note_unreadable(self, unreadable: dict[str, str]) -> None:
        for name, reason in unreadable.items():
            if self._unreadable.get(name) != reason:
                place = self.arrivals.folder / name
                self.reporter.note(f"{place} cannot be read now, trying again: {reason}")
        self._unreadable = unreadable


def _predict(
    worker: Worker,
    table: PartialFile,
    sources: Sequence[ImageInput],
    n_rows: int,
    size: int,
    settings: PredictSettings,
    reporter: Reporter,
) -> None:
    codes = worker.predictor.bundle.classes.codes
    tally = Tally(codes)
    batches = in_batches(enumerate(sources, start=n_rows + 1), size)
    for predictions in backends.by_threads(worker, batches, settings.workers):
        table.write(prediction.to_row(codes) for prediction in predictions)
        for prediction in predictions:
            tally.add(prediction)
    levels = ", ".join(f"{n} {level or 'predicted'}" for level, n in tally.triage.items())
    failed = f"; {tally.failed} could not be read: {tally.name_failures()}" if tally.failed else ""
    seen = (
        f"; {tally.in_training} in the training data: {tally.name_in_training()}" if tally.in_training else ""
    )
    new = counted(len(sources), "new image")
    reporter.note(f"{new}: {levels or 'none predicted'}{failed}{seen}")


def _folder(settings: PredictSettings) -> Path:
    if len(settings.inputs) != 1 or settings.listed != () or not Path(settings.inputs[0]).is_dir():
        raise UsageError("--watch needs one folder", "Example: predict ./inbox --watch --output results.csv")
    others = {
        "--output -": settings.output == STDOUT,
        "--shard": settings.shard,
        "--group": settings.group,
        "--report-pdf": settings.report_pdf,
        "--backend": settings.backend != "threads",
        "--follow-links": settings.follow_links,
        "--overwrite": settings.overwrite,
        "--resume": settings.resume,
    }
    given = [name for name, is_given in others.items() if is_given]
    if given:
        raise UsageError(
            f"--watch does not go with {name_items(given)}",
            "It continues its own table whenever it is started again.",
        )
    return Path(settings.inputs[0])
