"""A network in another format, with the measurement that shows that both give the same results.

Exports of a network in the workspace lie beside it. Those of a model that others made (the bundled one, a
packed one) lie in the user's cache: nothing is written into an installed package or a folder from others.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from safetensors.numpy import save

from skinlesion_cli.artifacts.base import Body, Content, StoredArtifact, checked_values, parsed
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.envelope import Artifact, read_artifact
from skinlesion_cli.artifacts.schema import JsonObject, Text
from skinlesion_cli.artifacts.tensors import load_float32, read_header
from skinlesion_cli.artifacts.user_cache import user_cache
from skinlesion_cli.config.schema import Preprocessing
from skinlesion_cli.errors import ArtifactError, UsageError
from skinlesion_cli.taxonomy import N_CLASSES

FORMATS = ("onnx", "onnx-int8", "openvino-bf16")
# These give other results than the network in float32: they need an accepted measurement of what that costs.
INEXACT = ("onnx-int8", "openvino-bf16")
# Formats that timmx writes, for use outside of skinlesion.
EDGE_SUFFIXES = {"openvino": ".xml", "coreml": ".mlpackage", "litert": ".tflite", "executorch": ".pte"}
ALL_FORMATS = (*FORMATS, *EDGE_SUFFIXES)


class ExportBody(Body):
    """The format, and what was measured before the export was accepted."""

    format: Text
    figures: JsonObject


@dataclass(frozen=True)
class Export(StoredArtifact):
    """`model` is an ONNX file: `pixels` uint8 (n, s, s, 3) in; `logits` (n, 7) and `features` (n, c, h, w)
    out.

    `classifier` is the last layer's weight, float32 (7, c). `figures` holds what was measured before it was
    accepted: on how many images, the largest difference of a probability, and BACC before and after.
    `preprocessing` is that of the network it was made from; None before it is saved.
    """

    KIND: ClassVar[str] = "export"

    format: str
    model: bytes
    classifier: np.ndarray
    figures: Mapping[str, Any]
    preprocessing: Preprocessing | None = None
    artifact: Artifact | None = field(default=None, compare=False)

    @classmethod
    def load_for(cls, checkpoint: Checkpoint, kind: str) -> Self:
        """The export of exactly this checkpoint in this format.

        Raises
        ------
        ArtifactError : it is missing, damaged, or made from another network.
        """
        hint = f"Run `skinlesion export --format {kind}`, with the same --model or --workspace."
        path = _path_of_this(checkpoint, kind) or path_of(checkpoint, kind)
        if not os.path.exists(path):
            raise ArtifactError(f"there is no {kind} export of {checkpoint.name}", hint)
        if path.parent.is_symlink():
            raise ArtifactError(f"{path.parent} is a link and is not followed", hint)
        export = cls.load(path, hint=hint)
        if export.format != kind:
            raise ArtifactError(f"{path.name} holds an export to {export.format}, not to {kind}", hint)
        if checkpoint.artifact is not None and export.artifact is not None:
            export.artifact.require_input("checkpoint", checkpoint.artifact)
        if export.preprocessing != checkpoint.preprocessing:
            raise ArtifactError(
                f"{path.name} has preprocessing {_shown(export.preprocessing)}, but {checkpoint.name} has "
                f"{_shown(checkpoint.preprocessing)}",
                hint,
            )
        return export

    def save_for(self, checkpoint: Checkpoint, *, cached: bool = False) -> Artifact:
        """Write it to the place of `folder_of`, as made from this checkpoint."""
        if checkpoint.artifact is None:
            raise ValueError("the checkpoint must be written before its export")
        path = path_of(checkpoint, self.format, cached=cached)
        made = replace(self, preprocessing=checkpoint.preprocessing)
        return made.save(path, inputs={"checkpoint": checkpoint.artifact})

    @classmethod
    def _from_artifact(cls, artifact: Artifact) -> Self:
        name, body = artifact.path.name, parsed(ExportBody, artifact)
        content, tensors = artifact.payload("classifier"), artifact.payloads["classifier"].name
        weight = read_header(content, tensors).get("weight")
        if weight is None or len(weight.shape) != 2 or weight.shape[0] != N_CLASSES:
            raise ArtifactError(f"{tensors} does not hold the last layer's weight, of shape (7, n_features)")
        return cls(
            format=body.format,
            model=artifact.payload("model"),
            classifier=load_float32(content, {"weight": weight.shape}, tensors)["weight"],
            figures=body.figures,
            preprocessing=checked_values(
                Preprocessing, artifact.preprocessing or {}, f"{name}, preprocessing"
            ),
            artifact=artifact,
        )

    def _content(self) -> Content:
        classifier = save({"weight": np.ascontiguousarray(self.classifier, dtype=np.float32)})
        return Content(
            {"format": self.format, "figures": dict(self.figures)},
            payloads={"model": (".onnx", self.model), "classifier": (".safetensors", classifier)},
            preprocessing=None if self.preprocessing is None else self.preprocessing.model_dump(mode="json"),
        )


def _shown(preprocessing: Preprocessing | None) -> object:
    return None if preprocessing is None else preprocessing.model_dump(mode="json")


def folder_of(checkpoint: Checkpoint, *, cached: bool = False) -> Path:
    """Folder of the exports of a network: beside it, or, `cached`, in the user's cache under its hash."""
    if checkpoint.artifact is None:
        raise ValueError("only a saved checkpoint has a folder for exports")
    if cached:
        return user_cache() / "exports" / checkpoint.artifact.sha256
    return checkpoint.artifact.path.parent / "onnx"


def path_of(checkpoint: Checkpoint, kind: str, *, cached: bool = False) -> Path:
    """The envelope of one export; see `folder_of`."""
    return folder_of(checkpoint, cached=cached) / f"{kind}.json"


def is_there(checkpoint: Checkpoint, kind: str) -> bool:
    """Whether an export of exactly this network exists; one that is damaged is an error."""
    return _path_of_this(checkpoint, kind) is not None


def _path_of_this(checkpoint: Checkpoint, kind: str) -> Path | None:
    """The export of exactly this network, beside it or in the cache; its payloads are not verified."""
    places = [path_of(checkpoint, kind)]
    with suppress(UsageError):  # a user without a home folder has no cache, and can predict nevertheless
        places.append(path_of(checkpoint, kind, cached=True))
    for path in places:
        # Not Path.exists: that raises where a folder on the way may not be entered.
        if os.path.exists(path):
            stored = read_artifact(
                path, kind=Export.KIND, schema_version=Export.SCHEMA_VERSION, verify_payloads=False
            )
            if checkpoint.artifact and stored.inputs.get("checkpoint") == checkpoint.artifact.sha256:
                return path
    return None
