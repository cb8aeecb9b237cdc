"""From a job to a trained network: the trainer with its batches, its saved state, and the checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from safetensors.torch import load, save

from skinlesion_cli.artifacts import checkpoint as checkpoints
from skinlesion_cli.artifacts import training_state
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.training_state import TrainingState
from skinlesion_cli.data.metadata import n_columns
from skinlesion_cli.data.training.augmentation import make_augmentation
from skinlesion_cli.data.training.loader import EpochPlan, TrainingImages, batches, default_workers
from skinlesion_cli.errors import ArtifactError, UsageError, name_items
from skinlesion_cli.models.freezing import n_stages
from skinlesion_cli.models.network import LesionNet, to_half_precision, weights_to_bytes
from skinlesion_cli.models.pretrained import initialise
from skinlesion_cli.models.training import state as saved_state
from skinlesion_cli.models.training.losses import class_weights, logit_offsets
from skinlesion_cli.models.training.trainer import Progress, Trainer
from skinlesion_cli.stages.train.initial import start_from_models
from skinlesion_cli.stages.train.job import Job, differences, identity_of
from skinlesion_cli.stages.train.watching import Watcher, history_csv

PRECISION = "stored_precision"


@dataclass(frozen=True)
class Fitted:
    """A trained network, where its weights came from, and how it went."""

    network: LesionNet
    source: str
    progress: Progress


def fit(job: Job) -> Fitted:
    """Train, from the beginning or from the saved state."""
    recipe = job.config.recipe
    network = make_network(job)
    source = start_from_models(job, network) or initialise(network, job.config.weights)
    job.reporter.note(f"initial weights: {source}")
    cache = job.cache(training_px(job))
    pixels = TrainingImages(
        pixels=cache.images,
        rows=np.array([cache.index[i] for i in job.train_ids]),
        labels=job.data.labels(job.train_ids),
        metadata=job.metadata(job.train_ids),
        metadata_drop=recipe.metadata_drop,
    )
    trainer = make_trainer(job, network, pixels)
    trainer.on_epoch = Watcher(job, trainer.steps_per_epoch)
    if job.team.is_first:
        trainer.save = lambda t: _save(job, t)
    _resume(job, trainer)
    trainer.fit()
    return Fitted(network, source, trainer.progress)


def make_network(job: Job) -> LesionNet:
    """The network with random weights, the same for a seed."""
    recipe = job.config.recipe
    torch.manual_seed(job.config.seed)
    return LesionNet(
        job.spec,
        job.preprocessing,
        drop_rate=recipe.drop_rate,
        drop_path_rate=recipe.drop_path_rate,
        n_metadata=n_columns(recipe.metadata_fields),
    )


def training_px(job: Job) -> int:
    """Side of the decoded images that augmentation starts from."""
    return job.config.recipe.harmonise_px or job.config.recipe.cache_size_px


def make_trainer(job: Job, network: LesionNet, images: TrainingImages) -> Trainer:
    """The trainer of this job on these images."""
    recipe, team = job.config.recipe, job.team
    if recipe.batch_size % team.size:
        raise UsageError(
            f"a batch of {recipe.batch_size} cannot be shared equally by {team.size} processes",
            "Choose a multiple with --batch-size.",
        )
    if recipe.freeze_stages and recipe.freeze_stages >= n_stages(network.backbone):
        raise UsageError(
            f"freeze_stages {recipe.freeze_stages} leaves nothing of {job.config.arch} to learn",
            f"It has {n_stages(network.backbone)} stages, the last of them the classifier.",
        )
    counts = job.data.counts(job.train_ids)
    sampler_power = recipe.sampler_power if recipe.sampler == "weighted" else None
    plan = EpochPlan(
        seed=job.config.seed,
        epoch=0,
        batch_size=recipe.batch_size,
        n_draws=round(len(job.train_ids) * recipe.epoch_fraction),
        sampler_power=sampler_power,
        drop_last=recipe.drop_last,
        rank=team.rank,
        world_size=team.size,
    )

    def epoch_batches(epoch: int, size_px: int, first_step: int) -> Iterator[tuple[torch.Tensor, ...]]:
        augmentation = make_augmentation(recipe.augmentation, size_px, counts)
        return batches(images, augmentation, replace(plan, epoch=epoch, first_step=first_step), workers(job))

    def validation_batches() -> Iterator[tuple[torch.Tensor, ...]]:
        for ids, pixels in job.inputs(job.validation_ids[team.rank :: team.size]):
            values = job.metadata(ids)
            known = () if values is None else (torch.from_numpy(values),)
            yield torch.from_numpy(pixels), torch.from_numpy(job.data.labels(ids)), *known

    return Trainer(
        network=network,
        recipe=recipe,
        seed=job.config.seed,
        steps_per_epoch=plan.n_steps,
        batches=epoch_batches,
        validation=validation_batches,
        device=job.device,
        reporter=job.reporter,
        class_weights=class_weights(counts, recipe.loss_weight_power, sampler_power),
        logit_offsets=logit_offsets(counts, recipe.logit_adjustment, sampler_power),
        team=team,
    )


def workers(job: Job) -> int:
    """Processes that prepare images."""
    return default_workers() if job.config.workers is None else job.config.workers


def _save(job: Job, trainer: Trainer) -> None:
    state = TrainingState(
        identity=json.dumps(job.identity(), sort_keys=True),
        tensors=save(saved_state.tensors(trainer)),
        counters=saved_state.counters(trainer),
    )
    training_state.write(job.folder, state)


def _resume(job: Job, trainer: Trainer) -> None:
    state = job.team.agree_on(lambda: _saved_state(job))
    if state is None:
        return
    saved_state.restore(trainer, load(state.tensors), dict(state.counters))
    at = trainer.progress
    job.reporter.note(f"going on at epoch {at.epoch + 1}, step {at.step + 1}")


def _saved_state(job: Job) -> TrainingState | None:
    if job.config.fresh:
        training_state.remove(job.folder)
        return None
    state = training_state.read(job.folder)
    if state is None:
        return None
    try:
        found = json.loads(state.identity)
    except ValueError:
        found = {}
    changed = differences(found, job.identity())
    if changed:
        raise ArtifactError(
            f"models/{job.name} holds an unfinished training with other settings: {name_items(changed)}",
            "Run the command with those settings again to finish it, or start over with --fresh.",
        )
    return state


def finished(job: Job) -> Checkpoint | None:
    """The checkpoint of this very job, where it is there already.

    Raises
    ------
    ArtifactError : there is one of other settings; all are named.
    """
    path = job.workspace.checkpoint(job.name)
    if job.config.fresh or not path.exists():
        return None
    found = checkpoints.read(path)
    changed = differences(identity_of(found), job.identity())
    if changed:
        raise ArtifactError(
            f"models/{job.name} was trained with other settings: {name_items(changed)}",
            "Train it anew with --fresh (which replaces it), or use another workspace.",
        )
    return found


def write_checkpoint(job: Job, fitted: Fitted) -> Checkpoint:
    """Store the trained network; the saved state is not needed any more."""
    progress, recipe = fitted.progress, job.config.recipe
    best = progress.history[progress.best_epoch - 1]
    made = Checkpoint(
        arch=job.config.arch,
        fold=job.fold,
        recipe=recipe,
        preprocessing=job.preprocessing,
        weights=weights_to_bytes(fitted.network),
        history_csv=history_csv(progress.history),
        figures={
            "best_epoch": progress.best_epoch,
            "epochs": progress.epoch,
            "val_bacc": best["val_bacc"],
            "validation_images": len(job.validation_ids),
            "metadata_columns": n_columns(recipe.metadata_fields),
            "weights": job.config.weights_name,
            "processes": job.team.size,
            PRECISION: "float32",
        },
        initial_weights=fitted.source,
        seed=job.config.seed,
    )
    path = job.workspace.checkpoint(job.name)
    checkpoints.write(path, made, inputs=job.data.inputs)
    training_state.remove(job.folder)
    return checkpoints.read(path)


def settle_precision(job: Job, done: Checkpoint) -> Checkpoint:
    """The checkpoint in the precision that is asked for; what was predicted with the other one is outdated.

    Raises
    ------
    ArtifactError : full precision is asked for, but it was stored in half precision.
    """
    stored = done.figures.get(PRECISION, "float32")
    wanted = "float16" if job.config.half else "float32"
    if stored == wanted:
        return done
    if not job.config.half:
        raise ArtifactError(
            f"models/{job.name} was stored in half precision", "Add --half, or train it anew with --fresh."
        )
    path = job.workspace.checkpoint(job.name)
    rounded = replace(
        done, weights=to_half_precision(done.weights), figures={**done.figures, PRECISION: wanted}
    )
    checkpoints.write(path, rounded, inputs=job.data.inputs)
    return checkpoints.read(path)
