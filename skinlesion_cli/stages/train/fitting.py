"""From a job to a trained network: the trainer with its batches, the training state, and the checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from safetensors.torch import load, save

from skinlesion_cli.artifacts.base import malformed_as_artifact_error
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.training_state import TrainingState, remove_state
from skinlesion_cli.data.metadata import n_columns
from skinlesion_cli.data.training.augmentation import make_augmentation
from skinlesion_cli.data.training.batch_augmentation import BatchAugmentation
from skinlesion_cli.data.training.loader import (
    DeviceImages,
    EpochPlan,
    TrainingImages,
    batches,
    default_workers,
    device_batches,
)
from skinlesion_cli.data.training.sampling import draw_weights
from skinlesion_cli.errors import ArtifactError, UsageError, name_items
from skinlesion_cli.models.freezing import n_stages
from skinlesion_cli.models.network import LesionNet, to_half_precision, weights_to_bytes
from skinlesion_cli.models.pretrained import initialise
from skinlesion_cli.models.timm_format import MODEL_ARGS
from skinlesion_cli.models.timm_networks import check_head
from skinlesion_cli.models.training.counters import Progress
from skinlesion_cli.models.training.losses import class_weights, logit_offsets
from skinlesion_cli.models.training.state import restore_state, state_counters, state_tensors
from skinlesion_cli.models.training.trainer import Trainer
from skinlesion_cli.models.training.tuning import Tuning
from skinlesion_cli.stages.train.initial import start_from_model
from skinlesion_cli.stages.train.job import Job, differences, identity_of, recipe_defaults
from skinlesion_cli.stages.train.watching import Watcher, history_csv
from skinlesion_cli.taxonomy.shipped import shipped

PRECISION = "stored_precision"


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network, the source of its initial weights, and its history."""

    network: LesionNet
    source: str
    progress: Progress


def fit(job: Job) -> TrainedNetwork:
    """Train from the beginning, or resume from the training state."""
    recipe = job.settings.recipe
    network = make_network(job)
    source = start_from_model(job, network) or initialise(network, job.settings.weights)
    job.reporter.note(f"initial weights: {source}")
    cache = job.cache(training_px(job))
    pixels = TrainingImages(
        pixels=cache.images,
        rows=np.array([cache.index[i] for i in job.train_ids]),
        labels=job.data.labels(job.train_ids),
        metadata=job.metadata(job.train_ids),
        metadata_drop=recipe.metadata_drop,
    )
    tuning = Tuning.prepare(network, recipe, job.settings.seed)
    if tuning.note:
        job.reporter.note(tuning.note)
    trainer = make_trainer(job, network, pixels, tuning)
    trainer.on_epoch = watcher = Watcher(job, trainer.steps_per_epoch)
    if job.distributed.is_first:
        trainer.save = lambda t: _save(job, t)
    resumed = _resume(job, trainer)
    if trainer.progress.finished:
        # Interrupted after its state was saved for the last time: no epoch is left that would write them.
        watcher.write(trainer.progress.history)
    with watcher.logging(resumed=resumed):
        trainer.fit()
    tuning.merge()
    return TrainedNetwork(network, source, trainer.progress)


def make_network(job: Job) -> LesionNet:
    """The network with random weights, determined by the seed."""
    recipe = job.settings.recipe
    torch.manual_seed(job.settings.seed)
    if job.spec.fixed_size and recipe.progressive_sizes_px:
        raise UsageError(
            f"{job.settings.arch} takes images of one size, but the recipe starts with smaller ones",
            "Add --set progressive_sizes_px=[].",
        )
    network = LesionNet(
        job.spec,
        job.preprocessing,
        drop_rate=recipe.drop_rate,
        drop_path_rate=recipe.drop_path_rate,
        n_classes=job.classes.n_classes,
        n_metadata=n_columns(recipe.metadata_fields),
    )
    if not job.spec.cam_layer:
        check_head(network.backbone, job.settings.arch, recipe.input_size_px)
        if job.spec.note:
            job.reporter.note(f"{job.spec.note}; this training uses {recipe.input_size_px} px")
    return network


def training_px(job: Job) -> int:
    """Side in pixels of the decoded images that augmentation starts from."""
    return job.settings.recipe.harmonise_px or job.settings.recipe.cache_size_px


def make_trainer(job: Job, network: LesionNet, images: TrainingImages, tuning: Tuning) -> Trainer:
    """The trainer for this job on these images, of a network that `tuning` has prepared."""
    recipe, distributed = job.settings.recipe, job.distributed
    if recipe.batch_size % distributed.size:
        raise UsageError(
            f"a batch of {recipe.batch_size} images cannot be divided equally among {distributed.size} "
            "processes",
            f"Choose a multiple of {distributed.size} with --batch-size.",
        )
    if recipe.schedule == "plateau" and recipe.warmup_epochs:
        raise UsageError(
            "schedule: plateau has no warm-up, but warmup_epochs is set",
            "Add --set warmup_epochs=0, or choose another schedule.",
        )
    if recipe.freeze_stages and recipe.freeze_stages >= n_stages(network.backbone):
        raise UsageError(
            f"freeze_stages {recipe.freeze_stages} would freeze all of {job.settings.arch}",
            f"It has {n_stages(network.backbone)} stages, the last of which is the classifier.",
        )
    if recipe.augmentation == "published" and not job.classes.agrees_with(shipped("isic2018")):
        job.reporter.note(
            "the published augmentation was made for the classes of isic2018; what was "
            "published about it does not apply to other classes"
        )
    counts = job.data.counts(job.train_ids)
    labels = job.data.labels(job.train_ids)
    weights = None
    if recipe.sampler == "weighted":
        weights = draw_weights(
            labels,
            job.data.sources(job.train_ids),
            class_power=recipe.sampler_power,
            source_power=recipe.sampler_source_power,
        )
    drawn = np.bincount(labels, weights, minlength=job.classes.n_classes).astype(np.float64)
    plan = EpochPlan(
        seed=job.settings.seed,
        epoch=0,
        batch_size=recipe.batch_size,
        n_draws=round(len(job.train_ids) * recipe.epoch_fraction),
        draw_weights=weights,
        drop_last=recipe.drop_last,
        rank=distributed.rank,
        world_size=distributed.size,
    )
    if not plan.positions(0):
        raise UsageError(
            f"an epoch of {plan.n_draws} images has none for each of {distributed.size} processes",
            "Raise epoch_fraction, or start fewer processes.",
        )
    in_batches = recipe.augmentation == "strong"
    on_device = DeviceImages(images, job.device) if job.augments_on_device else None

    def epoch_batches(epoch: int, size_px: int, first_step: int) -> Iterator[tuple[torch.Tensor, ...]]:
        here = replace(plan, epoch=epoch, first_step=first_step)
        if on_device is not None:
            augmentation = BatchAugmentation(size_px, job.device, recipe.augmentation_omits)
            return device_batches(on_device, augmentation, here)
        if in_batches:
            augmentation = BatchAugmentation(size_px, torch.device("cpu"), recipe.augmentation_omits)
            return batches(images, augmentation, here, workers(job))
        one_by_one = make_augmentation(recipe.augmentation, size_px, counts)
        return batches(images, one_by_one, here, workers(job), pinned=job.device.type == "cuda")

    return Trainer(
        network=network,
        recipe=recipe,
        seed=job.settings.seed,
        steps_per_epoch=plan.n_steps,
        batches=epoch_batches,
        validation=lambda: validation_batches(job),
        device=job.device,
        reporter=job.reporter,
        classes=job.classes,
        set_training_mode=tuning.set_training_mode,
        class_weights=class_weights(np.array([*counts.values()]), recipe.loss_weight_power, drawn),
        logit_offsets=logit_offsets(drawn, recipe.logit_adjustment),
        distributed=distributed,
        compiles=job.settings.compiles,
    )


def validation_batches(job: Job) -> Iterator[tuple[torch.Tensor, ...]]:
    """This process's share of the validation images, with labels and, if the recipe uses it, metadata."""
    for ids, pixels in job.inputs(job.validation_ids[job.distributed.rank :: job.distributed.size]):
        values = job.metadata(ids)
        metadata = () if values is None else (torch.from_numpy(values),)
        yield torch.from_numpy(pixels), torch.from_numpy(job.data.labels(ids)), *metadata


def workers(job: Job) -> int:
    """Number of processes that prepare images."""
    return default_workers() if job.settings.workers is None else job.settings.workers


def _save(job: Job, trainer: Trainer) -> None:
    state = TrainingState(
        identity=json.dumps(job.identity(), sort_keys=True),
        tensors=save(state_tensors(trainer)),
        counters=state_counters(trainer),
    )
    state.save(job.workspace.training_state(job.name))


def _resume(job: Job, trainer: Trainer) -> bool:
    """Put the trainer where an interrupted training was; False: there is none."""
    state = job.distributed.agree_on(lambda: _saved_state(job))
    if state is None:
        return False
    with malformed_as_artifact_error(job.workspace.training_state(job.name)):
        restore_state(trainer, load(state.tensors), dict(state.counters))
    progress = trainer.progress
    job.reporter.note(f"resuming at epoch {progress.epoch + 1}, step {progress.step + 1}")
    return True


def _saved_state(job: Job) -> TrainingState | None:
    if job.settings.fresh:
        remove_state(job.workspace.training_state(job.name))
        return None
    path = job.workspace.training_state(job.name)
    if not path.exists():
        return None
    state = TrainingState.load(path)
    changed = _differs(state, job)
    if changed:
        raise ArtifactError(
            f"models/{job.name} holds an unfinished training with other settings: {name_items(changed)}",
            "Run the command again with those settings to finish it, or start over with --fresh.",
        )
    return state


def _differs(state: TrainingState, job: Job) -> list[str]:
    """The settings that the interrupted training does not share with this job."""
    try:
        stored_identity = json.loads(state.identity)
    except ValueError:
        stored_identity = {}
    # A setting that an earlier version did not have yet had no effect there, and neither has its default.
    return differences({**recipe_defaults(), **stored_identity}, job.identity())


def _is_begun_again(job: Job) -> bool:
    """Whether this training was started with `--fresh` and interrupted: the checkpoint is the former one."""
    path = job.workspace.training_state(job.name)
    try:
        return path.exists() and not _differs(TrainingState.load(path), job)
    except ArtifactError:
        return False


def finished(job: Job) -> Checkpoint | None:
    """The checkpoint of this job, if it was trained before and is not being replaced.

    Raises
    ------
    ArtifactError : there is a checkpoint that was trained with other settings, which are named.
    """
    path = job.workspace.checkpoint(job.name)
    if job.settings.fresh or not path.exists() or _is_begun_again(job):
        return None
    stored = Checkpoint.load(path)
    changed = differences(identity_of(stored), job.identity())
    if changed:
        raise ArtifactError(
            f"models/{job.name} was trained with other settings: {name_items(changed)}",
            "Replace it with --fresh, or use another workspace.",
        )
    return stored


def write_checkpoint(job: Job, trained: TrainedNetwork) -> Checkpoint:
    """Store the trained network and remove its training state."""
    progress, recipe = trained.progress, job.settings.recipe
    best = next(row for row in progress.history if row["epoch"] == progress.best_epoch)
    checkpoint = Checkpoint(
        arch=job.settings.arch,
        fold=job.fold,
        recipe=recipe,
        preprocessing=job.preprocessing,
        weights=weights_to_bytes(trained.network),
        history_csv=history_csv(progress.history, job.classes),
        figures={
            "best_epoch": progress.best_epoch,
            "epochs": progress.epoch,
            "val_bacc": best["val_bacc"],
            "validation_images": len(job.validation_ids),
            "metadata_columns": n_columns(recipe.metadata_fields),
            "weights": job.settings.weights_name,
            "processes": job.distributed.size,
            PRECISION: "float32",
            **({MODEL_ARGS: dict(job.spec.options)} if job.spec.options else {}),
        },
        initial_weights=trained.source,
        seed=job.settings.seed,
        classes=job.classes,
    )
    path = job.workspace.checkpoint(job.name)
    checkpoint.save(path, inputs=job.data.inputs)
    remove_state(job.workspace.training_state(job.name))
    return Checkpoint.load(path)


def to_requested_precision(job: Job, checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint in the requested precision. Predictions made with another precision become outdated.

    Raises
    ------
    ArtifactError : full precision is requested, but the weights were stored in half precision.
    """
    stored = checkpoint.figures.get(PRECISION, "float32")
    requested = "float16" if job.settings.half else "float32"
    if stored == requested:
        return checkpoint
    if not job.settings.half:
        raise ArtifactError(
            f"models/{job.name} was stored in half precision", "Add --half, or train it again with --fresh."
        )
    path = job.workspace.checkpoint(job.name)
    rounded = replace(
        checkpoint,
        weights=to_half_precision(checkpoint.weights),
        figures={**checkpoint.figures, PRECISION: requested},
    )
    rounded.save(path, inputs=job.data.inputs)
    return Checkpoint.load(path)
