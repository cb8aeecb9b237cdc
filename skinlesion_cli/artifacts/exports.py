"""A network in another format, with the proof that it says the same as the one it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.envelope import Artifact, read_artifact, write_artifact
from skinlesion_cli.errors import ArtifactError

KIND = "export"
SCHEMA_VERSION = 1
FORMATS = ("onnx", "onnx-int8")


@dataclass(frozen=True)
class Export:
    """`model` is an ONNX file: `pixels` uint8 (n, s, s, 3) in; `logits` (n, 7) and `features` (n, c, h, w) out.

    `classifier` is the last layer's weight, float32 (7, c). `figures` holds what was measured before it was
    accepted: on how many images, the largest difference of a probability, and BACC before and after.
    """

    format: str
    model: bytes
    classifier: np.ndarray
    figures: Mapping[str, Any]
    artifact: Artifact | None = field(default=None, compare=False)


def path_of(checkpoint: Checkpoint, kind: str) -> Path:
    """`onnx/<kind>.json` beside the checkpoint."""
    if checkpoint.artifact is None:
        raise ValueError("only a checkpoint that lies on disk has a place for exports")
    return checkpoint.artifact.path.parent / "onnx" / f"{kind}.json"


def is_there(checkpoint: Checkpoint, kind: str) -> bool:
    """Whether there is an export of exactly this network; one that is damaged is an error."""
    path = path_of(checkpoint, kind)
    if not path.exists():
        return False
    found = read_artifact(path, kind=KIND, schema_version=SCHEMA_VERSION, verify_payloads=False)
    return checkpoint.artifact is not None and found.inputs.get("checkpoint") == checkpoint.artifact.sha256


def write(checkpoint: Checkpoint, export: Export) -> Artifact:
    """Write an export beside its checkpoint."""
    if checkpoint.artifact is None:
        raise ValueError("the checkpoint must be written before its export")
    return write_artifact(
        path_of(checkpoint, export.format),
        kind=KIND,
        schema_version=SCHEMA_VERSION,
        body={"format": export.format, "figures": dict(export.figures)},
        payloads={
            "model": (".onnx", export.model),
            "classifier": (".safetensors", save({"weight": np.ascontiguousarray(export.classifier)})),
        },
        inputs={"checkpoint": checkpoint.artifact},
        preprocessing=checkpoint.preprocessing.model_dump(mode="json"),
    )


def read(checkpoint: Checkpoint, kind: str) -> Export:
    """Read and verify an export; it must have been made from this checkpoint.

    Raises
    ------
    ArtifactError : it is missing, damaged, or made from another network.
    """
    path = path_of(checkpoint, kind)
    hint = f"Run `skinlesion export --format {kind}`."
    artifact = read_artifact(path, kind=KIND, schema_version=SCHEMA_VERSION, hint=hint)
    if checkpoint.artifact is not None:
        artifact.require_input("checkpoint", checkpoint.artifact)
    if artifact.preprocessing != checkpoint.preprocessing.model_dump(mode="json"):
        raise ArtifactError(
            f"{path.name} has preprocessing {artifact.preprocessing}, but {checkpoint.name} has "
            f"{checkpoint.preprocessing.model_dump(mode='json')}",
            hint,
        )
    return Export(
        format=artifact.body["format"],
        model=artifact.payloads["model"].read_bytes(),
        classifier=load(artifact.payloads["classifier"].read_bytes())["weight"],
        figures=artifact.body["figures"],
        artifact=artifact,
    )
