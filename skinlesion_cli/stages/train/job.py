"""One network to train: the settings, the images, and the identity that determines the resulting weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, InstanceOf, NonNegativeInt
from pydantic_core import to_jsonable_python

from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.schema import Preprocessing, Recipe
from skinlesion_cli.config.settings import StageSettings
from skinlesion_cli.data import metadata
from skinlesion_cli.data.preprocess import decode_target_px, from_field, to_field
from skinlesion_cli.data.training.cache import DecodedCache, ImageFile, open_cache
from skinlesion_cli.models.backbones import BackboneSpec, backbone
from skinlesion_cli.models.timm_format import ForeignNetwork
from skinlesion_cli.models.training.distributed import Distributed
from skinlesion_cli.progress import Reporter
from skinlesion_cli.taxonomy.class_list import ClassList

# Images per batch of prediction; a GPU needs more of them to be busy.
EVALUATION_BATCH, EVALUATION_BATCH_GPU = 32, 256
# Precedes the name of the model that training starts from.
MODEL_PREFIX = "model:"


class TrainSettings(StageSettings):
    """What to train.

    `network` is one in timm's format that is not timm's own; `arch` is then its architecture.
    `weights` is auto, none or a weights file; `model` (`builtin` or a folder) is a finished model to
    start from instead. `workers` None chooses by the number of cores. `folds` is the number of folds to train
    one after another, None for the single split into train and val; with `fold` only this one is trained.
    `logs` are names of `tracking.CLIENTS` that record each epoch. `half` stores the weights in half
    precision, with which all later results are computed. `compiles`: the steps go through `torch.compile`.
    """

    workspace: Path
    arch: str
    recipe: Recipe
    weights: str = "auto"
    seed: NonNegativeInt = 42
    device: str = "auto"
    workers: NonNegativeInt | None = None
    folds: Annotated[int, Field(ge=2)] | None = None
    fold: NonNegativeInt | None = None
    fresh: bool = False
    dry_run: bool = False
    tensorboard: bool = False
    logs: tuple[str, ...] = ()
    half: bool = False
    compiles: bool = False
    model: str | None = None
    network: InstanceOf[ForeignNetwork] | None = None

    @property
    def weights_name(self) -> str:
        """Name of the initial weights, independent of where the file or the packed model is stored."""
        if self.model is not None:
            return MODEL_PREFIX + Path(self.model).name
        return self.network.name if self.network and self.weights == "auto" else Path(self.weights).name


@dataclass(frozen=True)
class Dataset:
    """Labelled images and their split into parts."""

    manifest: Manifest
    split: Split

    @property
    def inputs(self) -> dict[str, Artifact]:
        if self.manifest.artifact is None or self.split.artifact is None:
            raise ValueError("artifacts read from disk carry their envelope")
        return {"manifest": self.manifest.artifact, "split": self.split.artifact}

    def files(self, ids: Iterable[str]) -> list[ImageFile]:
        """The image files of these ids, with the hashes that the manifest records."""
        rows = self.manifest.rows(list(ids))
        return [ImageFile(*row) for row in rows[["id", "file", "sha256"]].itertuples(index=False)]

    def labels(self, ids: list[str]) -> np.ndarray:
        """Class indexes, int64 (n,)."""
        index = self.manifest.classes.index
        return np.array([index[name] for name in self.manifest.rows(ids)["label"]], dtype=np.int64)

    def sources(self, ids: list[str]) -> np.ndarray:
        """Name of the source of each image, str (n,)."""
        return np.array(self.manifest.rows(ids)["source"], dtype=str)

    def counts(self, ids: list[str]) -> dict[str, int]:
        """Number of images of each class, in the order of the list."""
        codes = self.manifest.classes.codes
        counts = np.bincount(self.labels(ids), minlength=len(codes))
        return {name: int(n) for name, n in zip(codes, counts, strict=True)}


@dataclass(frozen=True)
class Job:
    """One network to train on `train_ids` and to validate
    on `validation_ids` (of a fold: the held-out images).
    """

    settings: TrainSettings
    data: Dataset
    fold: int | None
    train_ids: list[str]
    validation_ids: list[str]
    device: torch.device
    distributed: Distributed
    reporter: Reporter

    @property
    def classes(self) -> ClassList:
        """What the network is to distinguish."""
        return self.data.manifest.classes

    @property
    def spec(self) -> BackboneSpec:
        network = self.settings.network
        return backbone(self.settings.arch) if network is None else network.spec

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.settings.workspace)

    @property
    def name(self) -> str:
        """Name of the network: the architecture, followed by the fold if there are folds."""
        return self.settings.arch if self.fold is None else f"{self.settings.arch}-fold{self.fold}"

    @property
    def folder(self) -> Path:
        return self.workspace.model(self.name)

    @property
    def preprocessing(self) -> Preprocessing:
        return self.settings.recipe.preprocessing().model_copy(
            update={
                "mean": self.spec.mean,
                "std": self.spec.std,
                "interpolation": self.spec.interpolation,
            }
        )

    def identity(self) -> dict[str, Any]:
        """Everything that determines the resulting weights, in JSON types."""
        return _identity(
            self.settings.arch,
            self.fold,
            self.settings.recipe,
            self.settings.weights_name,
            self.settings.seed,
            self.data.inputs["split"].sha256,
        )

    def metadata(self, ids: list[str]) -> np.ndarray | None:
        """Encoded patient metadata, float32 (n, k); None if the recipe uses none."""
        fields = self.settings.recipe.metadata_fields
        if not fields:
            return None
        return metadata.encode(metadata.of_manifest(self.data.manifest.rows(ids)), fields)

    def cache(self, size_px: int) -> DecodedCache:
        """All images of the dataset, decoded to squares of this size through the filter of the network."""
        files = self.data.files(self.data.manifest.table["id"])
        return open_cache(
            self.workspace.cache,
            files,
            self.workspace.images,
            size_px,
            self.reporter,
            interpolation=self.preprocessing.interpolation,
        )

    @property
    def evaluation_batch(self) -> int:
        """Images per batch of prediction."""
        return EVALUATION_BATCH_GPU if self.device.type == "cuda" else EVALUATION_BATCH

    @property
    def augments_on_device(self) -> bool:
        """Whether training batches are made on the device that trains, and not by worker processes."""
        return self.settings.recipe.augmentation == "strong" and self.device.type == "cuda"

    def inputs(self, ids: list[str]) -> Iterator[tuple[list[str], np.ndarray]]:
        """Batches of ids and of their images as prediction feeds them to the network, uint8 (n, s, s, 3)."""
        for chunk, fields in self.fields(ids):
            yield chunk, np.stack([from_field(field, self.preprocessing) for field in fields])

    def fields(self, ids: list[str]) -> Iterator[tuple[list[str], np.ndarray]]:
        """Batches of ids and of their images at the size that crops are cut from, uint8 (n, f, f, 3)."""
        # Resizing an image to the size that it has changes nothing, so a cache of harmonised images (or of
        # the inputs themselves) gives exactly the pixels that reading the file would give.
        cache = self.cache(decode_target_px(self.preprocessing))
        size = self.evaluation_batch
        for start in range(0, len(ids), size):
            chunk = ids[start : start + size]
            yield chunk, np.stack([to_field(cache[i], self.preprocessing) for i in chunk])


def identity_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """The identity of the job that a checkpoint was trained by."""
    return _identity(
        checkpoint.arch,
        checkpoint.fold,
        checkpoint.recipe,
        checkpoint.figures.get("weights", "auto"),
        checkpoint.seed,
        checkpoint.artifact.input_sha256("split") if checkpoint.artifact else "",
    )


def _identity(
    arch: str, fold: int | None, recipe: Recipe, weights: str, seed: int, split: str
) -> dict[str, Any]:
    return {
        "arch": arch,
        "fold": fold,
        "weights": weights,
        "seed": seed,
        "split": split[:12],
        **recipe.model_dump(mode="json", exclude={"name"}),
    }


def recipe_defaults() -> dict[str, Any]:
    """The default of every recipe setting that has one, in JSON types, as in `Job.identity`."""
    return {
        name: to_jsonable_python(field.get_default(call_default_factory=True))
        for name, field in Recipe.model_fields.items()
        if not field.is_required()
    }


def differences(stored: dict[str, Any], requested: dict[str, Any]) -> list[str]:
    """The settings in which two identities differ, with both values."""
    return [
        f"{key} {stored.get(key)} (now {requested.get(key)})"
        for key in requested | stored
        if stored.get(key) != requested.get(key)
    ]
