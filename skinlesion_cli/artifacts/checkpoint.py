"""A trained network: its weights, the recipe that made them, and the preprocessing that they expect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import Field

from skinlesion_cli.artifacts.base import Body, Content, OpenBody, StoredArtifact, checked_values, parsed
from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.files import sha256_bytes
from skinlesion_cli.artifacts.schema import Count, FileName, JsonObject, Share, Text
from skinlesion_cli.artifacts.tensors import read_header, stored_tensors
from skinlesion_cli.config.schema import Preprocessing, Recipe, canonical_json
from skinlesion_cli.errors import ArtifactError
from skinlesion_cli.taxonomy.class_list import ClassList


class CheckpointFigures(OpenBody):
    """What was measured in training. Others are kept beside them."""

    best_epoch: Annotated[int, Field(ge=-1, le=100_000)] = -1
    epochs: Annotated[int, Field(ge=0, le=100_000)] = 0
    val_bacc: Share | None = None
    validation_images: Count = 0
    metadata_columns: Annotated[int, Field(ge=0, le=1_000)] = 0
    weights: Text = ""
    processes: Annotated[int, Field(ge=1, le=100_000)] = 1
    stored_precision: Text = "float32"
    model_args: JsonObject = Field(default_factory=dict)


class CheckpointBody(Body):
    """The architecture, the recipe that trained it, and its initial weights."""

    arch: FileName
    fold: Annotated[int, Field(ge=0, le=1_000)] | None
    recipe: Recipe
    figures: CheckpointFigures
    initial_weights: Text


@dataclass(frozen=True)
class Checkpoint(StoredArtifact):
    """`weights` is the content of a safetensors file; `figures` holds the epoch kept and its validation BACC.

    `initial_weights` says where training started (a file's hash, a package and version, `none`). The
    network has one logit for each of `classes`, in their order.
    """

    KIND: ClassVar[str] = "checkpoint"

    arch: str
    recipe: Recipe
    preprocessing: Preprocessing
    weights: bytes
    history_csv: bytes
    figures: Mapping[str, Any]
    initial_weights: str
    seed: int
    fold: int | None = None
    classes: ClassList = field(kw_only=True)
    artifact: Artifact | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        return self.arch if self.fold is None else f"{self.arch}-fold{self.fold}"

    @property
    def validation_bacc(self) -> float | None:
        """Balanced accuracy (0 to 1) of the epoch that was kept; None where it was not measured."""
        return self.figures.get("val_bacc")

    def tensors(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Some of the weights as they are stored, float32 or float16.

        Raises
        ------
        ArtifactError : one of them is missing, of another type, or not finite; they are named.
        """
        return stored_tensors(self.weights, names, f"the weights of {self.name}")

    @classmethod
    def _from_artifact(cls, artifact: Artifact) -> Self:
        name = artifact.path.name
        body = parsed(CheckpointBody, artifact)
        # The hash is that of the recipe as it was stored:
        # one of an earlier version lacks the newest settings.
        if sha256_bytes(canonical_json(artifact.body["recipe"])) != artifact.config_sha256:
            raise ArtifactError(f"{name}: the recipe does not have the hash that is stated")
        missing = {"input_size_px", "mean", "std"} - set(artifact.preprocessing or {})
        if artifact.preprocessing is None or missing:
            raise ArtifactError(
                f"{name} does not say what preprocessing its network expects: "
                f"{', '.join(sorted(missing))} missing"
            )
        weights = artifact.payload("weights")
        read_header(weights, artifact.payloads["weights"].name)
        return cls(
            arch=body.arch,
            fold=body.fold,
            recipe=body.recipe,
            preprocessing=checked_values(Preprocessing, artifact.preprocessing, f"{name}, preprocessing"),
            weights=weights,
            history_csv=artifact.payload("history"),
            figures=body.figures.model_dump(exclude_unset=True),
            initial_weights=body.initial_weights,
            seed=artifact.seed or 0,
            classes=artifact.classes,
            artifact=artifact,
        )

    def _content(self) -> Content:
        body = {
            "arch": self.arch,
            "fold": self.fold,
            "recipe": self.recipe.model_dump(mode="json"),
            "figures": dict(self.figures),
            "initial_weights": self.initial_weights,
        }
        return Content(
            body,
            payloads={"weights": (".safetensors", self.weights), "history": (".csv", self.history_csv)},
            config_sha256=self.recipe.sha256(),
            preprocessing=self.preprocessing.model_dump(mode="json"),
            seed=self.seed,
            classes=self.classes,
        )

    @classmethod
    def _missing_hint(cls, path: Path) -> str:
        return f"Train it first: `skinlesion train --arch {path.parent.name}`."
