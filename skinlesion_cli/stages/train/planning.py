"""The estimated duration of a training, from a few timed steps: `--dry-run`, which writes nothing, and a note
where a recipe for a GPU is trained on a CPU."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from skinlesion_cli.data.training.loader import STEPS_AHEAD, TrainingImages
from skinlesion_cli.inference.stored_views import stored_views
from skinlesion_cli.models.training.memory import peak_memory_bytes
from skinlesion_cli.models.training.trainer import Trainer
from skinlesion_cli.models.training.tuning import Tuning
from skinlesion_cli.models.training.validation import BatchPredictor
from skinlesion_cli.parallel import available_cores
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.result import StageResult, Table, counted
from skinlesion_cli.stages.train.fitting import make_network, make_trainer, training_px, workers
from skinlesion_cli.stages.train.job import Job
from skinlesion_cli.stages.train.watching import duration

_TIMED_STEPS = 3
# The recipe that takes days on a CPU, the one that is made for it, and the images of the step that is timed.
_GPU_RECIPE, _CPU_RECIPE, _ROUGH_BATCH = "default", "light", 4


def plan(job: Job) -> StageResult:
    """Time a few steps at every input size of the recipe, on some of the training images."""
    recipe = job.settings.recipe
    batch_size = recipe.batch_size
    images, decode_s = _some_images(job, min(len(job.train_ids), (_TIMED_STEPS + 1) * batch_size))
    network = make_network(job)
    sample = replace(job, settings=job.settings.replace(workers=0))
    parameters = sum(p.numel() for p in network.parameters())
    tuning = Tuning.prepare(network, recipe, job.settings.seed)
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    trainer = make_trainer(sample, network, images, tuning)
    trainer.set_training_mode(trainer.network)
    # The cost of an epoch depends on its input size and on whether the first stages are frozen by its middle.
    epochs = [
        (recipe.is_frozen_at((epoch + 0.5) / recipe.epochs), recipe.size_px_at(epoch / recipe.epochs))
        for epoch in range(recipe.epochs)
    ]
    rows, step_s, images_per_s = [], {}, {}
    for kind in sorted(set(epochs)):
        frozen, size_px = kind
        if frozen and not trainer.frozen:
            trainer.freeze()
        label = f"{size_px} px, frozen" if frozen else f"{size_px} px"
        with job.reporter.task(f"timing steps at {label}", total=None):
            prepare_s, compute_s = _time_steps(job, trainer, size_px)
        step_s[kind] = _overlapped(job, prepare_s, compute_s)
        epoch_s = step_s[kind] * trainer.steps_per_epoch
        images_per_s[f"{size_px}-frozen" if frozen else str(size_px)] = batch_size / step_s[kind]
        rows.append([label, epochs.count(kind), f"{batch_size / step_s[kind]:.3g}", duration(epoch_s)])
    forward_s = _time_forward(job, trainer.network)
    predicted = len(stored_views(job.preprocessing)) * (
        len(job.validation_ids) + len(job.data.split.ids("test"))
    )
    training_s = sum(step_s[kind] * trainer.steps_per_epoch for kind in epochs)
    evaluation_s = forward_s * (recipe.epochs * len(job.validation_ids) + predicted)
    peak = peak_memory_bytes(job.device)
    settings = job.settings
    times = settings.folds if settings.folds and settings.fold is None else 1
    # All folds share one cache of decoded images.
    decoding_s = decode_s * len(job.data.manifest.table) / available_cores()
    seconds = (training_s + evaluation_s) * times + decoding_s
    folds = "" if settings.folds is None else f", {times} folds one after the other"
    if settings.fold is not None:
        folds = f", fold {settings.fold} of {settings.folds}"
    return StageResult(
        command="train",
        headline=[
            f"plan for {job.settings.arch} with recipe {recipe.name}: {counted(recipe.epochs, 'epoch')} of "
            f"{counted(trainer.steps_per_epoch, 'step')} of {counted(batch_size, 'image')}" + folds,
            f"{len(job.train_ids)} training and {len(job.validation_ids)} validation images; "
            f"{parameters:,} parameters"
            + ("" if trained == parameters else f", {trained:,} of them trained"),
            f"about {duration(seconds)} on {job.device} ({duration(training_s * times)} training, "
            f"{duration(evaluation_s * times)} validation and predictions); peak memory "
            + (f"{peak / 1e9:.1f} GB" if peak else "unknown")
            + (" of the GPU" if peak and job.device.type == "cuda" else ""),
            "Estimated from a few steps; nothing was trained or written.",
        ],
        figures={
            "arch": job.settings.arch,
            "recipe": recipe.model_dump(mode="json"),
            "recipe_sha256": recipe.sha256(),
            "training_images": len(job.train_ids),
            "validation_images": len(job.validation_ids),
            "steps_per_epoch": trainer.steps_per_epoch,
            "parameters": parameters,
            "trained_parameters": trained,
            "seconds": seconds,
            "training_seconds": training_s * times,
            "seconds_per_step": {
                f"{size}-frozen" if frozen else str(size): value for (frozen, size), value in step_s.items()
            },
            "images_per_second": images_per_s,
            "peak_memory_bytes": peak,
            "device": str(job.device),
            "folds": job.settings.folds,
        },
        tables=[Table("Training", ["size", "epochs", "images/s", "time per epoch"], rows)],
        next_command="the same command without --dry-run",
    )


def note_idle_gpus(job: Job) -> None:
    """Where one of several GPUs is used: that there are others."""
    if job.device.type != "cuda" or job.distributed.size > 1:
        return
    n_gpus = torch.cuda.device_count()
    if n_gpus > 1:
        job.reporter.note(
            f"timed on one of {n_gpus} GPUs; a training uses all of them whose number divides the batch size"
            if job.settings.dry_run
            else f"one of {n_gpus} GPUs is used. For all of them: accelerate launch -m skinlesion_cli train "
            "... (the batch size is that of all processes together and has to be a multiple of their number)"
        )


def note_without_gpu(jobs: Sequence[Job]) -> None:
    """Where a recipe for a GPU is to be trained on a CPU: how long that takes, and which recipe is for it.

    Reads and decodes no image: the step that is timed has a few uniform ones.
    """
    left = [job for job in jobs if job.settings.fresh or not job.workspace.checkpoint(job.name).exists()]
    if not left or left[0].settings.recipe.name != _GPU_RECIPE or left[0].device.type != "cpu":
        return
    job, recipe = left[0], left[0].settings.recipe
    drawn = round(len(job.train_ids) * recipe.epoch_fraction)
    whole, rest = divmod(drawn, recipe.batch_size)
    n_steps = recipe.epochs * (whole + (1 if rest and not recipe.drop_last else 0))
    length = f"{counted(n_steps, 'step')} of {counted(recipe.batch_size, 'image')}" + (
        f" for each of {len(left)} folds" if len(left) > 1 else ""
    )
    # Several processes would have to time it together.
    seconds = n_steps * _rough_step_s(job) * len(left) if job.distributed.size == 1 else None
    about = (
        f": about {duration(seconds)} on this CPU, from the time of {_ROUGH_BATCH} images" if seconds else ""
    )
    job.reporter.note(
        f"recipe {recipe.name} is for a GPU, and none is used: {length} at {recipe.input_size_px} px{about}. "
        f"For a CPU: --recipe {_CPU_RECIPE}. A better estimate, of either: --dry-run"
    )


def _rough_step_s(job: Job) -> float:
    """Seconds of a training step, in proportion to one with a smaller batch."""
    recipe = job.settings.recipe
    n = min(_ROUGH_BATCH, recipe.batch_size)
    small = job.settings.replace(workers=0, recipe=recipe.model_copy(update={"batch_size": n}))
    sample = replace(job, settings=small, reporter=SilentReporter())
    size_px = training_px(job)
    images = TrainingImages(
        pixels=np.full((n, size_px, size_px, 3), 128, dtype=np.uint8),
        rows=np.arange(len(job.train_ids)) % n,
        labels=job.data.labels(job.train_ids),
        metadata=job.metadata(job.train_ids),
        metadata_drop=recipe.metadata_drop,
    )
    network = make_network(sample)
    tuning = Tuning.prepare(network, recipe, job.settings.seed)
    trainer = make_trainer(sample, network, images, tuning)
    trainer.set_training_mode(trainer.network)
    prepare_s, compute_s = _time_steps(sample, trainer, recipe.input_size_px, n_steps=1)
    return _overlapped(job, prepare_s, compute_s) * recipe.batch_size / n


def _some_images(job: Job, n: int) -> tuple[TrainingImages, float]:
    """The first n training images, decoded, and the decoding time in seconds per image."""
    size_px = training_px(job)
    ids = job.train_ids[:n]
    started = time.perf_counter()
    filter_name = job.preprocessing.interpolation
    pixels = [file.read(job.workspace.images, size_px, filter_name) for file in job.data.files(ids)]
    seconds = (time.perf_counter() - started) / n
    images = TrainingImages(
        pixels=np.stack(pixels),
        # Every training image is replaced by one of these; its label stays its own.
        rows=np.arange(len(job.train_ids)) % n,
        labels=job.data.labels(job.train_ids),
        metadata=job.metadata(job.train_ids),
        metadata_drop=job.settings.recipe.metadata_drop,
    )
    return images, seconds


def _time_steps(job: Job, trainer: Trainer, size_px: int, n_steps: int = _TIMED_STEPS) -> tuple[float, float]:
    """Seconds to prepare a batch in one process, or to wait for one that is made on the device; and seconds
    to train on it.
    """
    prepared, computed = [], []
    batches = iter(trainer.batches(0, size_px, 0))
    # The first step includes one-time set-up; and nothing waits for batches that were made during it.
    first = 1 + STEPS_AHEAD * job.augments_on_device
    for _ in range(n_steps + first):
        started = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            break
        ready = time.perf_counter()
        trainer.train_step(batch)
        _synchronize(job.device)
        prepared.append(ready - started)
        computed.append(time.perf_counter() - ready)
    # They are used only where there are no others.
    timed = slice(first if len(computed) > first else len(computed) // 2, None)
    return float(np.median(prepared[timed])), float(np.median(computed[timed]))


def _overlapped(job: Job, prepare_s: float, compute_s: float) -> float:
    """Seconds per step when batches are prepared in parallel with the computation."""
    processes = workers(job)
    if job.augments_on_device or not processes:
        return prepare_s + compute_s
    if job.device.type == "cpu":
        # Both compete for the same cores.
        return compute_s + prepare_s / available_cores()
    return max(compute_s, prepare_s / processes)


def _time_forward(job: Job, network: torch.nn.Module) -> float:
    """Seconds per image of a forward pass over a validation batch."""
    size_px, n_images = job.preprocessing.input_size_px, job.evaluation_batch
    images = torch.zeros((n_images, size_px, size_px, 3), dtype=torch.uint8)
    batch = images, torch.zeros(n_images, dtype=torch.int64)
    predictor = BatchPredictor(job.device, job.reporter.note)
    network.eval()
    for _ in range(2):
        started = time.perf_counter()
        predictor.predict(network, [batch])
    return (time.perf_counter() - started) / n_images


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
