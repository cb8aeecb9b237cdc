"""`skinlesion average`: the mean of the weights of finished models, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.files import exclusive
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.settings import StageSettings
from skinlesion_cli.errors import UsageError
from skinlesion_cli.models.network import load_mean
from skinlesion_cli.models.timm_format import ForeignNetwork
from skinlesion_cli.models.training.counters import Progress
from skinlesion_cli.models.training.history import history_row
from skinlesion_cli.models.training.validation import BatchPredictor
from skinlesion_cli.progress import Reporter
from skinlesion_cli.result import StageResult
from skinlesion_cli.stages.train.fitting import (
    TrainedNetwork,
    finished,
    make_network,
    to_requested_precision,
    validation_batches,
    write_checkpoint,
)
from skinlesion_cli.stages.train.initial import StartingModel
from skinlesion_cli.stages.train.job import Job, TrainSettings
from skinlesion_cli.stages.train.jobs import make_jobs
from skinlesion_cli.stages.train.predicting import predict_parts, write_out_of_fold


class AverageSettings(StageSettings):
    """Finished models whose weights to average, each `builtin` or a folder.
    The first one decides the input size.

    `half` stores the weights in half precision; `fresh` replaces other networks of the same name.
    """

    workspace: Path
    models: Annotated[tuple[str, ...], Field(min_length=2)]
    device: str = "auto"
    half: bool = False
    fresh: bool = False


def run(settings: AverageSettings, reporter: Reporter) -> StageResult:
    """Write `models/<arch>/`, or one folder per fold: checkpoints, and predictions on the held-out images.

    Raises
    ------
    UsageError : the models have other architectures or folds than one another.
    DataError : images that would evaluate the mean were used to train one of the models.
    """
    models = [StartingModel.load(name) for name in settings.models]
    jobs = make_jobs(_settings(settings, models), reporter)
    averaged, written = [], []
    for job in jobs:
        with exclusive(job.folder, "average"):
            if finished(job) is None:
                write_checkpoint(job, _mean(job, models))
            stored = Checkpoint.load(job.workspace.checkpoint(job.name))
            checkpoint = to_requested_precision(job, stored)
            averaged.append(checkpoint)
            written += [job.workspace.checkpoint(job.name), *predict_parts(job, checkpoint)]
    if jobs[0].fold is not None:
        written.extend(write_out_of_fold(jobs, averaged))
    return _result(settings, averaged, models, written)


def _settings(settings: AverageSettings, models: list[StartingModel]) -> TrainSettings:
    """The mean as a training of 0 epochs with the recipe of the first model."""
    architectures = sorted({member.arch for model in models for member in model.bundle.members})
    if len(architectures) > 1:
        raise UsageError(
            f"networks of different architectures have no mean: {', '.join(architectures)}",
            "Name models of one architecture.",
        )
    first = models[0].bundle.members[0]
    folds = None
    if first.fold is not None:
        workspace = Workspace(settings.workspace)
        folds = Split.load(workspace.split, Manifest.load(workspace.manifest)).n_folds or None
    return TrainSettings(
        workspace=settings.workspace,
        arch=first.arch,
        network=ForeignNetwork.of_checkpoint(first),
        recipe=first.recipe.model_copy(update={"epochs": 0}),
        weights="mean:" + "+".join(Path(name).name for name in settings.models),
        seed=first.seed,
        device=settings.device,
        folds=folds,
        half=settings.half,
        fresh=settings.fresh,
    )


def _mean(job: Job, models: list[StartingModel]) -> TrainedNetwork:
    members = [model.member(job) for model in models]
    sources = [model.describe(member) for model, member in zip(models, members, strict=True)]
    if len({member.fold for member in members}) > 1:
        raise UsageError(
            "the mean of networks of different folds could not be evaluated on any image: "
            f"{'; '.join(sources)}",
            "Name models that were trained with the same folds.",
        )
    network = make_network(job)
    load_mean(network, [member.weights for member in members], [member.name for member in members])
    network = network.to(job.device).eval()
    predictor = BatchPredictor(job.device, job.reporter.note)
    labels, logits = predictor.predict(network, validation_batches(job))
    row = history_row(0, None, None, labels, logits, job.classes)
    source = f"mean of {len(sources)}: " + "; ".join(sources)
    job.reporter.note(f"weights: {source}")
    return TrainedNetwork(network, source, Progress(best_epoch=0, history=[row]))


def _result(
    settings: AverageSettings, averaged: list[Checkpoint], models: list[StartingModel], written: list[Path]
) -> StageResult:
    sizes = {model.bundle.members[0].preprocessing.input_size_px: None for model in models}
    warnings = []
    if len(sizes) > 1:
        warnings.append(
            f"the models have input sizes of {', '.join(map(str, sizes))} px; the mean uses that of the "
            "first, "
            f"{next(iter(sizes))} px"
        )
    return StageResult(
        command="average",
        headline=[
            f"{c.name}: validation BACC {c.figures['val_bacc']:.4f} on {c.figures['validation_images']} "
            "images, "
            f"single view, mean of {len(models)} models"
            for c in averaged
        ],
        figures={
            "models": [model.bundle.model_id for model in models],
            "networks": [{"name": c.name, **c.figures} for c in averaged],
        },
        artifacts=[str(path) for path in written],
        warnings=warnings,
        next_command="skinlesion ensemble",
    )
