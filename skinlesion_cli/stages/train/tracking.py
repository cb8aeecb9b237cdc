"""The figures of each epoch in TensorBoard, MLflow and Weights & Biases, by their own clients.

They get the settings of the training and the rows of its history; no image, no id and no path.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from skinlesion_cli.artifacts.files import atomic_write
from skinlesion_cli.errors import SkinLesionError, UsageError, one_line, unknown_name
from skinlesion_cli.stages.train.job import Job, TrainSettings

# The values of --log.
CLIENTS = ("mlflow", "wandb")
# MLflow's experiment and the project of Weights & Biases, unless the environment names others.
PROJECT = "skinlesion"

Row = Mapping[str, float | None]


class EpochLog(Protocol):
    """Where one training is recorded."""

    def epoch(self, row: Row) -> None:
        """Record a row of the history."""

    def close(self, *, finished: bool) -> None:
        """End the record; an unfinished training may resume it."""


def require_clients(settings: TrainSettings) -> None:
    """Import the packages that the settings ask for.

    Raises
    ------
    UsageError : there is no such client, or its package is not installed; the command that installs it is
        named.
    """
    for name in dict.fromkeys(settings.logs):
        _client(name)
    if settings.tensorboard:
        _summary_writer()


@dataclass(frozen=True)
class Logs:
    """The logs of one training. What a log cannot record during the training is noted and does not end it."""

    job: Job
    logs: Mapping[str, EpochLog]

    def epoch(self, row: Row) -> None:
        """Record a row of the history in every log."""
        for name, log in self.logs.items():
            self._try(name, f"epoch {row['epoch']:g} was not recorded", partial(log.epoch, row))

    def close(self, *, finished: bool) -> None:
        """End all records."""
        for name, log in self.logs.items():
            self._try(name, "the end was not recorded", partial(log.close, finished=finished))

    def _try(self, name: str, failure: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            # Clients raise errors of their own for a server that is gone, a full disk, and much else.
            self.job.reporter.note(f"{name}: {failure}: {one_line(str(error) or type(error).__name__)}")


def open_logs(job: Job, *, resumed: bool) -> Logs:
    """The logs that the settings ask for; a resumed training continues its records.

    Raises
    ------
    SkinLesionError : a record cannot be started, for example because its server does not answer.
    """
    logs: dict[str, EpochLog] = {}
    if job.settings.tensorboard:
        logs["tensorboard"] = _TensorBoard(job.workspace.tensorboard(job.name))
    make: dict[str, type[_MLflow] | type[_WandB]] = {"mlflow": _MLflow, "wandb": _WandB}
    runs = _Runs(job.workspace.tracking_runs(job.name))
    for name in dict.fromkeys(job.settings.logs):
        try:
            log = make[name](job, runs.stored(name) if resumed else None)
        except Exception as error:
            # As above; before the training starts, they end it.
            raise SkinLesionError(
                f"--log {name}: no run can be started: {one_line(str(error) or type(error).__name__)}",
                "Check the address and the key of its server, record on this machine only "
                "(WANDB_MODE=offline, or no MLFLOW_TRACKING_URI), or omit --log.",
            ) from error
        runs.store(name, log.run_id)
        job.reporter.note(f"{name}: run {log.run_id}, {log.place}")
        logs[name] = log
    return Logs(job, logs)


@dataclass(frozen=True)
class _Runs:
    """The run of each client, by which a resumed training finds it again: a small JSON file."""

    path: Path

    def stored(self, name: str) -> str | None:
        with contextlib.suppress(OSError, ValueError):
            run_id = json.loads(self.path.read_text(encoding="utf-8")).get(name)
            return run_id if isinstance(run_id, str) else None
        return None

    def store(self, name: str, run_id: str) -> None:
        known = {each: self.stored(each) for each in CLIENTS} | {name: run_id}
        text = json.dumps({each: value for each, value in known.items() if value}, indent=2)
        atomic_write(self.path, f"{text}\n".encode())


def _figures(row: Row) -> tuple[int, dict[str, float]]:
    """The epoch, counted from 1, and its defined figures."""
    figures = {key: value for key, value in row.items() if key != "epoch" and value is not None}
    return int(row["epoch"] or 0), figures


def _client(name: str) -> Any:
    if name not in CLIENTS:
        raise UsageError(f"--log: {unknown_name(name, CLIENTS)}")
    try:
        if name == "mlflow":
            import mlflow

            return mlflow
        import wandb

        return wandb
    except ImportError:
        raise UsageError(
            f"--log {name} needs the package {name}", f"pip install 'skinlesion[{name}]'"
        ) from None


class _MLflow:
    """A run of MLflow, in the store of MLFLOW_TRACKING_URI, else in a database of the workspace."""

    def __init__(self, job: Job, run_id: str | None) -> None:
        # The client instead of the module's functions, which keep the active run in global variables.
        server = os.environ.get("MLFLOW_TRACKING_URI")
        uri = server or _sqlite_uri(job.workspace.mlflow_store)
        # An address of a server may contain a password.
        self.place = "stored where MLFLOW_TRACKING_URI says" if server else f"stored in {uri}"
        # Of what users attach to the runs later; without it, a folder where the command was started.
        files = (job.workspace.root / "mlruns").resolve().as_uri()
        self._location = {} if server else {"artifact_location": files}
        self._client = _client("mlflow").MlflowClient(tracking_uri=uri)
        if run_id is None:
            self.run_id = self._start(job)
        else:
            self._client.update_run(run_id, status="RUNNING")
            self.run_id = run_id

    def _start(self, job: Job) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = (
            experiment.experiment_id if experiment else self._client.create_experiment(name, **self._location)
        )
        run_id = str(self._client.create_run(experiment_id, run_name=job.name).info.run_id)
        for key, value in job.identity().items():
            self._client.log_param(run_id, key, value)
        return run_id

    def epoch(self, row: Row) -> None:
        epoch, figures = _figures(row)
        for key, value in figures.items():
            self._client.log_metric(self.run_id, key, value, step=epoch)

    def close(self, *, finished: bool) -> None:
        self._client.set_terminated(self.run_id, "FINISHED" if finished else "KILLED")


def _sqlite_uri(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{path.resolve().as_posix()}"


class _WandB:
    """A run of Weights & Biases; WANDB_MODE and WANDB_PROJECT are read by its client."""

    def __init__(self, job: Job, run_id: str | None) -> None:
        wandb = _client("wandb")
        job.folder.mkdir(parents=True, exist_ok=True)
        project = {} if os.environ.get("WANDB_PROJECT") else {"project": PROJECT}
        self._run: Any = wandb.init(
            name=job.name,
            config=job.identity(),
            dir=str(job.folder),
            id=run_id,
            resume=None if run_id is None else "allow",
            # Neither what is printed nor the code of the current folder leaves the machine.
            settings=wandb.Settings(console="off", silent=True, save_code=False, disable_git=True),
            **project,
        )
        self.run_id = str(self._run.id)
        self.place = f"stored in {job.folder / 'wandb'}" if self._run.offline else str(self._run.url)

    def epoch(self, row: Row) -> None:
        epoch, figures = _figures(row)
        self._run.log(figures, step=epoch)

    def close(self, *, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError(
            "--tensorboard needs the package tensorboard", "pip install 'skinlesion[tensorboard]'"
        ) from None
    return SummaryWriter


class _TensorBoard:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def epoch(self, row: Row) -> None:
        epoch, figures = _figures(row)
        if self._writer is None:
            # A resumed run deletes what an earlier one logged for the epochs that it repeats.
            self._writer = _summary_writer()(str(self._folder), purge_step=epoch)
        for key, value in figures.items():
            self._writer.add_scalar(key, value, epoch)
        self._writer.flush()

    def close(self, *, finished: bool) -> None:
        if self._writer is not None:
            self._writer.close()
