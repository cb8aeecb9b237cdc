"""Train one network on the workspace's dataset: checkpoint, history, stored predictions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load, save

from skinlesion_cli.artifacts import checkpoint as checkpoints
from skinlesion_cli.artifacts import manifest as manifests
from skinlesion_cli.artifacts import predictions as stored
from skinlesion_cli.artifacts import split as splits
from skinlesion_cli.artifacts import tables, training_state
from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.files import exclusive, sha256_bytes
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.schema import Preprocessing, Recipe, canonical_json
from skinlesion_cli.data.augmentation import make_augmentation
from skinlesion_cli.data.cache import DecodedCache, open_cache
from skinlesion_cli.data.loader import EpochPlan, TrainingImages, batches, default_workers
from skinlesion_cli.data.preprocess import to_input
from skinlesion_cli.errors import ArtifactError, DataError
from skinlesion_cli.inference import tta
from skinlesion_cli.inference.runtimes.torch_runtime import TorchRuntime
from skinlesion_cli.inference.views import view_probabilities
from skinlesion_cli.models.backbones import backbone
from skinlesion_cli.models.devices import resolve_device
from skinlesion_cli.models.loop import Progress, Trainer
from skinlesion_cli.models.losses import class_weights
from skinlesion_cli.models.network import LesionNet, load_weights, weights_to_bytes
from skinlesion_cli.models.pretrained import initialise
from skinlesion_cli.progress import Reporter
from skinlesion_cli.stages.result import StageResult
from skinlesion_cli.taxonomy import CLASS_INDEX, CLASS_NAMES

_EVALUATION_BATCH = 32


@dataclass(frozen=True)
class TrainConfig:
    """What to train. `weights` is auto, none, or a safetensors file; `workers` None picks by cores."""

    workspace: Path
    arch: str
    recipe: Recipe
    weights: str = "auto"
    seed: int = 42
    device: str = "auto"
    workers: int | None = None
    fresh: bool = False


@dataclass(frozen=True)
class _Dataset:
    manifest: manifests.Manifest
    split: splits.Split

    @property
    def inputs(self) -> dict[str, Artifact]:
        assert self.manifest.artifact is not None
        assert self.split.artifact is not None
        return {"manifest": self.manifest.artifact, "split": self.split.artifact}


@dataclass(frozen=True)
class _Fitted:
    network: LesionNet
    source: str
    progress: Progress


def run(config: TrainConfig, reporter: Reporter) -> StageResult:
    """Train, or go on with a training that was cut; writes `models/<arch>/`."""
    workspace = Workspace(config.workspace)
    spec = backbone(config.arch)
    device = resolve_device(config.device)
    manifest = manifests.read(workspace.manifest)
    data = _Dataset(manifest, splits.read(workspace.split, manifest))
    preprocessing = config.recipe.preprocessing().model_copy(update={"mean": spec.mean, "std": spec.std})
    folder = workspace.model(config.arch)
    with exclusive(folder, "train"):
        done = _finished(workspace, config, data)
        if done is None:
            fitted = _fit(config, data, preprocessing, device, reporter)
            done = _write_checkpoint(workspace, config, data, preprocessing, fitted)
            training_state.remove(folder)
        written = _predict_parts(workspace, done, data, device, reporter)
    return _result(config, done, written)


def _identity(config: TrainConfig, data: _Dataset) -> str:
    """Everything that decides the resulting weights; a state or checkpoint of another identity is not reused."""
    parts = {
        "arch": config.arch,
        "recipe": config.recipe.sha256(),
        "weights": config.weights if config.weights in ("auto", "none") else Path(config.weights).name,
        "seed": config.seed,
        "split": data.inputs["split"].sha256,
    }
    return sha256_bytes(canonical_json(parts))


def _finished(workspace: Workspace, config: TrainConfig, data: _Dataset) -> checkpoints.Checkpoint | None:
    path = workspace.checkpoint(config.arch)
    if config.fresh or not path.exists():
        return None
    found = checkpoints.read(path)
    if found.figures.get("identity") == _identity(config, data):
        return found
    raise ArtifactError(
        f"models/{config.arch} was trained with another recipe, seed, split or initial weights",
        "Train it anew with --fresh (which replaces it), or use another workspace.",
    )


def _fit(
    config: TrainConfig,
    data: _Dataset,
    preprocessing: Preprocessing,
    device: torch.device,
    reporter: Reporter,
) -> _Fitted:
    recipe, workspace = config.recipe, Workspace(config.workspace)
    train_ids, validation_ids = data.split.ids("train"), data.split.ids("val")
    if not train_ids or not validation_ids:
        raise DataError(
            f"the split has {len(train_ids)} training and {len(validation_ids)} validation images"
        )
    torch.manual_seed(config.seed)
    network = LesionNet(
        backbone(config.arch), preprocessing, drop_rate=recipe.drop_rate, drop_path_rate=recipe.drop_path_rate
    )
    source = initialise(network, config.weights)
    reporter.note(f"initial weights: {source}")
    cache = _cache(workspace, data, recipe.harmonise_px or recipe.cache_size_px, reporter)
    labels = _labels(data, train_ids)
    counts = {name: int((labels == CLASS_INDEX[name]).sum()) for name in CLASS_NAMES}
    training = TrainingImages(
        pixels=cache.images, rows=np.array([cache.index[i] for i in train_ids]), labels=labels
    )
    plan = EpochPlan(
        seed=config.seed,
        epoch=0,
        batch_size=recipe.batch_size,
        n_draws=round(len(train_ids) * recipe.epoch_fraction),
        sampler_power=recipe.sampler_power if recipe.sampler == "weighted" else None,
    )
    workers = default_workers() if config.workers is None else config.workers
    validation = _InputImages(workspace, data, validation_ids, preprocessing, reporter)

    def epoch_batches(epoch: int, size_px: int, first_step: int) -> Iterator[tuple[torch.Tensor, ...]]:
        augmentation = make_augmentation(recipe.augmentation, size_px, counts)
        return batches(training, augmentation, replace(plan, epoch=epoch, first_step=first_step), workers)

    def validation_batches() -> Iterator[tuple[torch.Tensor, ...]]:
        for start, images in validation.batches():
            chunk = validation_labels[start : start + len(images)]
            yield torch.from_numpy(images), torch.from_numpy(chunk)

    validation_labels = _labels(data, validation_ids)
    identity = _identity(config, data)
    folder = workspace.model(config.arch)
    trainer = Trainer(
        network=network,
        recipe=recipe,
        seed=config.seed,
        steps_per_epoch=plan.n_steps,
        batches=epoch_batches,
        validation=validation_batches,
        device=device,
        reporter=reporter,
        save=lambda t: training_state.write(
            folder, training_state.TrainingState(identity, save(t.tensors()), t.counters())
        ),
        class_weights=class_weights(counts, recipe.loss_weight_power),
    )
    _resume(trainer, folder, identity, config.fresh, reporter)
    trainer.fit()
    return _Fitted(network, source, trainer.progress)


def _resume(trainer: Trainer, folder: Path, identity: str, fresh: bool, reporter: Reporter) -> None:
    if fresh:
        training_state.remove(folder)
        return
    state = training_state.read(folder)
    if state is None:
        return
    if state.identity != identity:
        raise ArtifactError(
            f"models/{folder.name} holds an unfinished training with other settings",
            "Run the command with those settings again to finish it, or start over with --fresh.",
        )
    trainer.restore(load(state.tensors), dict(state.counters))
    at = trainer.progress
    reporter.note(f"going on at epoch {at.epoch + 1}, step {at.step + 1}")


def _labels(data: _Dataset, ids: list[str]) -> np.ndarray:
    names = data.manifest.rows(ids)["label"]
    return np.array([CLASS_INDEX[name] for name in names], dtype=np.int64)


def _cache(workspace: Workspace, data: _Dataset, size_px: int, reporter: Reporter) -> DecodedCache:
    table = data.manifest.table
    return open_cache(
        workspace.cache,
        list(zip(table["id"], table["file"], strict=True)),
        workspace.images,
        size_px,
        data.inputs["manifest"].sha256,
        reporter,
    )


class _InputImages:
    """Images of one part of the split exactly as prediction would feed them."""

    def __init__(
        self,
        workspace: Workspace,
        data: _Dataset,
        ids: list[str],
        preprocessing: Preprocessing,
        reporter: Reporter,
    ) -> None:
        # Resizing an image that has the target size changes nothing, so a cache of the harmonised image (or
        # of the input itself) gives the very pixels that the file would.
        self.cache = _cache(
            workspace, data, preprocessing.harmonise_px or preprocessing.input_size_px, reporter
        )
        self.ids, self.preprocessing = ids, preprocessing

    def batches(self) -> Iterator[tuple[int, np.ndarray]]:
        for start in range(0, len(self.ids), _EVALUATION_BATCH):
            chunk = self.ids[start : start + _EVALUATION_BATCH]
            yield start, np.stack([to_input(self.cache[i], self.preprocessing) for i in chunk])


def _write_checkpoint(
    workspace: Workspace,
    config: TrainConfig,
    data: _Dataset,
    preprocessing: Preprocessing,
    fitted: _Fitted,
) -> checkpoints.Checkpoint:
    progress = fitted.progress
    best = progress.history[progress.best_epoch - 1]
    made = checkpoints.Checkpoint(
        arch=config.arch,
        recipe=config.recipe,
        preprocessing=preprocessing,
        weights=weights_to_bytes(fitted.network),
        history_csv=tables.to_csv(pd.DataFrame(progress.history)),
        figures={
            "best_epoch": progress.best_epoch,
            "val_bacc": best["val_bacc"],
            "validation_images": len(data.split.ids("val")),
            "identity": _identity(config, data),
        },
        initial_weights=fitted.source,
        seed=config.seed,
    )
    checkpoints.write(workspace.checkpoint(config.arch), made, inputs=data.inputs)
    return checkpoints.read(workspace.checkpoint(config.arch))


def _predict_parts(
    workspace: Workspace,
    done: checkpoints.Checkpoint,
    data: _Dataset,
    device: torch.device,
    reporter: Reporter,
) -> list[Path]:
    """Stored predictions of the held-out parts, made anew where they are not of this very checkpoint."""
    assert done.artifact is not None
    network = LesionNet(backbone(done.arch), done.preprocessing)
    load_weights(network, done.weights, done.name)
    runtime = TorchRuntime(network, str(device))
    written = []
    for part in ("val", "test"):
        ids = data.split.ids(part)
        if not ids:
            continue
        path = workspace.predictions(done.name, part)
        written.append(path)
        if path.exists() and _is_of(path, done.artifact):
            continue
        images = _InputImages(workspace, data, ids, done.preprocessing, reporter)
        views = tta.MODES["d4"]
        with reporter.task(f"predicting {part}, {len(views)} views", total=len(ids), unit="images") as task:
            found = view_probabilities(runtime, (b for _, b in images.batches()), views, task.advance)
        table = data.manifest.rows(ids)[["id", "lesion_id", "label"]].assign(fold="")
        stored.write(
            path,
            stored.Predictions(table, found, views, source=done.name, part=part),
            inputs=data.inputs | {"checkpoint": done.artifact},
        )
    return written


def _is_of(path: Path, checkpoint: Artifact) -> bool:
    found = json.loads(path.read_text(encoding="utf-8"))
    return found.get("inputs", {}).get("checkpoint") == checkpoint.sha256


def _result(config: TrainConfig, done: checkpoints.Checkpoint, written: list[Path]) -> StageResult:
    bacc = done.figures["val_bacc"]
    shown = "undefined" if bacc is None else f"{bacc:.4f}"
    return StageResult(
        command="train",
        headline=[
            f"{done.name}: validation BACC {shown} on {done.figures['validation_images']} images, single view, "
            f"epoch {done.figures['best_epoch']} of {config.recipe.epochs}",
        ],
        figures={
            "arch": config.arch,
            "recipe": config.recipe.name,
            "recipe_sha256": config.recipe.sha256(),
            **{k: v for k, v in done.figures.items() if k != "identity"},
        },
        artifacts=[name for name in map(str, [Workspace(config.workspace).checkpoint(done.name), *written])],
        next_command="skinlesion ensemble",
    )
