"""A trained network: its weights, the recipe that made them, and the preprocessing that they expect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skinlesion_cli.artifacts.envelope import (
    Artifact,
    malformed_as_artifact_error,
    read_artifact,
    write_artifact,
)
from skinlesion_cli.artifacts.files import sha256_bytes
from skinlesion_cli.config.schema import Preprocessing, Recipe, canonical_json
from skinlesion_cli.errors import ArtifactError

KIND = "checkpoint"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """`weights` is the content of a safetensors file; `figures` holds the epoch kept and its validation BACC.

    `initial_weights` says where training started (a file's hash, a package and version, `none`).
    """

    arch: str
    recipe: Recipe
    preprocessing: Preprocessing
    weights: bytes
    history_csv: bytes
    figures: Mapping[str, Any]
    initial_weights: str
    seed: int
    fold: int | None = None
    artifact: Artifact | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        return self.arch if self.fold is None else f"{self.arch}-fold{self.fold}"


def write(path: Path, checkpoint: Checkpoint, *, inputs: Mapping[str, Artifact]) -> Artifact:
    """Write a checkpoint; the one that was there before stays whole until the last step."""
    return write_artifact(
        path,
        kind=KIND,
        schema_version=SCHEMA_VERSION,
        body={
            "arch": checkpoint.arch,
            "fold": checkpoint.fold,
            "recipe": checkpoint.recipe.model_dump(mode="json"),
            "figures": dict(checkpoint.figures),
            "initial_weights": checkpoint.initial_weights,
        },
        payloads={
            "weights": (".safetensors", checkpoint.weights),
            "history": (".csv", checkpoint.history_csv),
        },
        inputs=inputs,
        config_sha256=checkpoint.recipe.sha256(),
        preprocessing=checkpoint.preprocessing.model_dump(mode="json"),
        seed=checkpoint.seed,
    )


@malformed_as_artifact_error
def read(path: Path) -> Checkpoint:
    """Read and verify a checkpoint."""
    artifact = read_artifact(
        path,
        kind=KIND,
        schema_version=SCHEMA_VERSION,
        hint=f"Train it first: `skinlesion train --arch {path.parent.name}`.",
    )
    # The hash is that of the recipe as it was stored: one of an earlier version lacks the newest settings.
    if sha256_bytes(canonical_json(artifact.body["recipe"])) != artifact.config_sha256:
        raise ArtifactError(f"{path.name}: the recipe does not have the hash that is stated")
    recipe = Recipe.model_validate(artifact.body["recipe"])
    return Checkpoint(
        arch=artifact.body["arch"],
        fold=artifact.body["fold"],
        recipe=recipe,
        preprocessing=Preprocessing.model_validate(artifact.preprocessing),
        weights=artifact.payloads["weights"].read_bytes(),
        history_csv=artifact.payloads["history"].read_bytes(),
        figures=artifact.body["figures"],
        initial_weights=artifact.body["initial_weights"],
        seed=int(artifact.seed or 0),
        artifact=artifact,
    )
