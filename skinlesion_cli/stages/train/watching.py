"""Progress of a training as it runs: a live table, history.csv, curves, and logs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pandas as pd

from skinlesion_cli.artifacts import tables
from skinlesion_cli.artifacts.files import atomic_write
from skinlesion_cli.models.training.counters import EpochTime
from skinlesion_cli.models.training.history import history_columns, sensitivity_column
from skinlesion_cli.report.curves import training_curves
from skinlesion_cli.result import percent
from skinlesion_cli.stages.train.job import Job
from skinlesion_cli.stages.train.tracking import Logs, open_logs
from skinlesion_cli.taxonomy.class_list import ClassList

Row = Mapping[str, float | None]


class Watcher:
    """Called after each epoch; only the first of several processes writes and prints."""

    def __init__(self, job: Job, steps_per_epoch: int) -> None:
        self._job, self._steps = job, steps_per_epoch
        self._logs = Logs(job, {})

    @contextmanager
    def logging(self, *, resumed: bool) -> Iterator[None]:
        """Open the logs that the settings ask for, and end them with the block."""
        # Where the first process fails to open them, all processes end.
        self._job.distributed.agree_on(lambda: self._open(resumed))
        finished = False
        try:
            yield
            finished = True
        finally:
            self._logs.close(finished=finished)

    def _open(self, resumed: bool) -> None:
        self._logs = open_logs(self._job, resumed=resumed)

    def __call__(self, history: list[dict[str, float | None]], time: EpochTime) -> None:
        job = self._job
        if not job.distributed.is_first:
            return
        row = history[-1]
        job.reporter.row("train", self._table_row(row, len(history), time))
        self.write(history)
        self._logs.epoch(row)

    def write(self, history: list[dict[str, float | None]]) -> None:
        """Write the table and the curves of the history."""
        job = self._job
        if job.distributed.is_first:
            atomic_write(job.workspace.history(job.name), history_csv(history, job.classes))
            atomic_write(job.workspace.curves(job.name), training_curves(history, job.name))

    def _table_row(self, row: Row, n_epochs: int, time: EpochTime) -> dict[str, object]:
        recipe = self._job.settings.recipe
        # The duration of an epoch is proportional to its number of pixels:
        # later epochs may use larger images.
        work = [recipe.size_px_at(epoch / recipe.epochs) ** 2 for epoch in range(recipe.epochs)]
        evaluation_s = time.total_s - time.training_s
        epoch_s = time.training_s * self._steps / max(time.n_steps, 1) + evaluation_s
        left_s = epoch_s / work[n_epochs - 1] * sum(work[n_epochs:])
        images = time.n_steps * recipe.batch_size
        return {
            "epoch": f"{n_epochs}/{recipe.epochs}",
            "rate": row["learning_rate"],
            "loss": row["train_loss"],
            "val_loss": row["val_loss"],
            "BACC": row["val_bacc"],
            **{
                name: _or_undefined(row[sensitivity_column(name)])
                for name in self._job.classes.malignant_codes
            },
            "images/s": images / max(time.training_s, 1e-9),
            "waiting": percent(time.waiting_s / max(time.training_s, 1e-9), 0),
            "left": duration(left_s),
        }


def history_csv(history: list[dict[str, float | None]], classes: ClassList) -> bytes:
    """The history as CSV, with a fixed order of columns, so that a resumed run writes the same file."""
    return tables.to_csv(pd.DataFrame(history, columns=list(history_columns(classes))))


def duration(seconds: float) -> str:
    """A duration for display: 42 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _or_undefined(value: float | None) -> float:
    return float("nan") if value is None else value
