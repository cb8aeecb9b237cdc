"""Train one network on the workspace's dataset; writes its checkpoint, history and predictions."""

from __future__ import annotations

import contextlib
from pathlib import Path

from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.files import exclusive
from skinlesion_cli.errors import UsageError
from skinlesion_cli.models.backbones import backbone
from skinlesion_cli.models.training.memory import keep_freed_memory
from skinlesion_cli.progress import Reporter
from skinlesion_cli.result import StageResult
from skinlesion_cli.stages.train.fitting import finished, fit, to_requested_precision, write_checkpoint
from skinlesion_cli.stages.train.initial import network_of_model
from skinlesion_cli.stages.train.job import Job, TrainSettings
from skinlesion_cli.stages.train.jobs import make_jobs
from skinlesion_cli.stages.train.planning import note_idle_gpus, note_without_gpu, plan
from skinlesion_cli.stages.train.predicting import predict_parts, write_out_of_fold
from skinlesion_cli.stages.train.tracking import require_clients

__all__ = ["TrainSettings", "run"]

_OTHER_FOLDS = (
    "After the other folds are trained, run the same command without --fold to join their predictions."
)


def run(settings: TrainSettings, reporter: Reporter) -> StageResult:
    """Train, or resume an interrupted training; writes `models/<arch>/`, or one folder per fold."""
    keep_freed_memory()
    if settings.model is not None:
        settings = settings.replace(network=network_of_model(settings.model))
    backbone(settings.arch)
    require_clients(settings)
    if not settings.recipe.epochs:
        raise UsageError(
            "a training needs at least one epoch",
            "Change --epochs. To average trained models use `skinlesion average`.",
        )
    jobs = make_jobs(settings, reporter)
    chosen = jobs if settings.fold is None else [jobs[settings.fold]]
    note_idle_gpus(chosen[0])
    if settings.dry_run:
        return plan(chosen[0])
    note_without_gpu(chosen)
    trained, written = [], []
    for job in chosen:
        with _exclusive_access(job):
            checkpoint, paths = _train(job)
        trained.append(checkpoint)
        written += [job.workspace.checkpoint(job.name), *paths]
    if settings.folds and settings.fold is None and jobs[0].distributed.is_first:
        written.extend(write_out_of_fold(jobs, trained))
    return _result(settings, trained, written)


def _exclusive_access(job: Job) -> contextlib.AbstractContextManager[None]:
    return exclusive(job.folder, "train") if job.distributed.is_first else contextlib.nullcontext()


def _train(job: Job) -> tuple[Checkpoint, list[Path]]:
    distributed = job.distributed
    if not distributed.agree_on(lambda: finished(job) is not None):
        trained = fit(job)
        distributed.agree_on(lambda: bool(write_checkpoint(job, trained)))
    checkpoint = distributed.agree_on(
        lambda: to_requested_precision(job, Checkpoint.load(job.workspace.checkpoint(job.name)))
    )
    return checkpoint, predict_parts(job, checkpoint) if distributed.is_first else []


def _result(settings: TrainSettings, trained: list[Checkpoint], written: list[Path]) -> StageResult:
    figures = [{"name": c.name, **{k: v for k, v in c.figures.items() if k != "identity"}} for c in trained]
    return StageResult(
        command="train",
        headline=[
            f"{c.name}: validation BACC {c.figures['val_bacc']:.4f} on {c.figures['validation_images']} "
            "images, "
            f"single view, epoch {c.figures['best_epoch']} of {c.recipe.epochs}"
            for c in trained
        ]
        + ([] if settings.fold is None else [_OTHER_FOLDS]),
        figures={
            "arch": settings.arch,
            "recipe": settings.recipe.name,
            "recipe_sha256": settings.recipe.sha256(),
            **({"folds": figures} if settings.folds else figures[0]),
        },
        artifacts=[str(path) for path in written],
        next_command="skinlesion ensemble" if settings.fold is None else None,
    )
