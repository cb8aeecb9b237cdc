"""A network in another format, with the proof that it says the same as the one it was made from.

Exports of a network in the workspace lie beside it. Those of a model that others made (the built-in one, a packed
one) lie in the user's cache: nobody writes into an installed package or into a folder that was handed on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.envelope import Artifact, read_artifact, write_artifact
from skinlesion_cli.artifacts.user_cache import user_cache
from skinlesion_cli.errors import ArtifactError, UsageError

KIND = "export"
SCHEMA_VERSION = 1
FORMATS = ("onnx", "onnx-int8", "openvino-bf16")
# These say something else than the network in float32: they need an accepted measurement of what that costs.
INEXACT = ("onnx-int8", "openvino-bf16")
# Formats that timmx writes, for use outside of skinlesion.
EDGE_SUFFIXES = {"openvino": ".xml", "coreml": ".mlpackage", "litert": ".tflite", "executorch": ".pte"}
ALL_FORMATS = (*FORMATS, *EDGE_SUFFIXES)


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


def folder_of(checkpoint: Checkpoint, *, cached: bool = False) -> Path:
    """Where exports of a network belong: beside it, or, `cached`, in the user's cache under its hash."""
    if checkpoint.artifact is None:
        raise ValueError("only a checkpoint that lies on disk has a place for exports")
    if cached:
        return user_cache() / "exports" / checkpoint.artifact.sha256
    return checkpoint.artifact.path.parent / "onnx"


def path_of(checkpoint: Checkpoint, kind: str, *, cached: bool = False) -> Path:
    """The envelope of one export; see `folder_of`."""
    return folder_of(checkpoint, cached=cached) / f"{kind}.json"


def is_there(checkpoint: Checkpoint, kind: str) -> bool:
    """Whether there is an export of exactly this network; one that is damaged is an error."""
    return _found(checkpoint, kind) is not None


def _found(checkpoint: Checkpoint, kind: str) -> Path | None:
    """The export of exactly this network, beside it or in the cache; its payloads are not looked at."""
    places = [path_of(checkpoint, kind)]
    with suppress(UsageError):  # a user without a home folder has no cache, and predicts all the same
        places.append(path_of(checkpoint, kind, cached=True))
    for path in places:
        # Not Path.exists: that raises where a folder on the way may not be entered.
        if os.path.exists(path):
            found = read_artifact(path, kind=KIND, schema_version=SCHEMA_VERSION, verify_payloads=False)
            if checkpoint.artifact and found.inputs.get("checkpoint") == checkpoint.artifact.sha256:
                return path
    return None


def write(checkpoint: Checkpoint, export: Export, *, cached: bool = False) -> Artifact:
    """Write an export to the place of `folder_of`."""
    if checkpoint.artifact is None:
        raise ValueError("the checkpoint must be written before its export")
    return write_artifact(
        path_of(checkpoint, export.format, cached=cached),
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
    hint = f"Run `skinlesion export --format {kind}`, with the same --model or --workspace."
    path = _found(checkpoint, kind) or path_of(checkpoint, kind)
    if not path.exists():
        raise ArtifactError(f"there is no {kind} export of {checkpoint.name}", hint)
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
