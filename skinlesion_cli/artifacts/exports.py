"""A network in another format, with the measurement that shows that both give the same results.

The ONNX graph of a network holds no weights: it refers to those in the network's own safetensors file, and
lies beside it. Other formats hold weights of their own, in a folder `onnx` beside the network; so did graphs
of earlier versions. Exports of a model that others made (a packed one without graphs) lie in the user's
cache: nothing is written into an installed package or a folder from others.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import Field
from safetensors.numpy import save

from skinlesion_cli.artifacts import edge_exports
from skinlesion_cli.artifacts.base import Body, Content, StoredArtifact, checked_values, parsed
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.envelope import Artifact, read_artifact
from skinlesion_cli.artifacts.schema import JsonObject, Text
from skinlesion_cli.artifacts.tensors import load_float32, read_header
from skinlesion_cli.artifacts.user_cache import user_cache
from skinlesion_cli.config.schema import Preprocessing
from skinlesion_cli.errors import ArtifactError, UsageError

# Names of the inputs of an exported network (the second only with a branch for metadata), and of its outputs.
INPUT, METADATA = "pixels", "metadata"
LOGITS, FEATURES, DETAIL = "logits", "features", "detail"
GRAPH = "onnx"
FORMATS = (GRAPH, "onnx-int8", "openvino-bf16")
# These give other results than the network in float32: they need an accepted measurement of what that costs.
INEXACT = ("onnx-int8", "openvino-bf16")
# Then those for use outside of skinlesion.
ALL_FORMATS = (*FORMATS, *edge_exports.SUFFIXES)


class ExportBody(Body):
    """The format, and what was measured before the export was accepted.

    `tensors` names the tensors of the network's file that a graph takes, `classifier` the one among them that
    is the last layer's weight; empty where the export holds weights of its own.
    """

    format: Text
    figures: JsonObject
    tensors: Annotated[tuple[Text, ...], Field(max_length=100_000)] = ()
    classifier: str = ""


@dataclass(frozen=True)
class Export(StoredArtifact):
    """`model` is an ONNX file: `pixels` uint8 (n, s, s, 3) in, and `metadata` float32 (n, k) where the
    network has a branch for it; `logits` (n, n_classes), `features` (n, c, h, w) out.

    `classifier` is the last layer's weight, float32 (n_classes, c). `figures` holds what was measured before
    it was accepted: on how many images, the largest difference of a probability, and BACC before and after.
    `preprocessing` is that of the network it was made from; None before it is saved. `weights` are the
    tensors, float32 or float16, that `model` does not hold itself, and `classifier_name` is the name of the
    classifier among them; both are empty where it holds all.
    """

    KIND: ClassVar[str] = "export"
    SCHEMA_VERSION: ClassVar[int] = 2

    format: str
    model: bytes
    classifier: np.ndarray
    figures: Mapping[str, Any]
    preprocessing: Preprocessing | None = None
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)
    classifier_name: str = ""
    artifact: Artifact | None = field(default=None, compare=False)

    @classmethod
    def of_graph(
        cls,
        checkpoint: Checkpoint,
        graph: bytes,
        tensors: Sequence[str],
        classifier_name: str,
        figures: Mapping[str, Any],
    ) -> Self:
        """A graph that takes these tensors from the network's own file.

        Raises
        ------
        ArtifactError : the file lacks one of them, or it is not finite.
        """
        return cls(GRAPH, graph, np.zeros((0, 0), np.float32), figures)._linked(
            checkpoint, tensors, classifier_name
        )

    def _linked(self, checkpoint: Checkpoint, tensors: Sequence[str], classifier_name: str) -> Self:
        weights = checkpoint.tensors([*tensors, classifier_name])
        classifier = weights[classifier_name].astype(np.float32)
        if classifier.ndim != 2 or len(classifier) != checkpoint.classes.n_classes:
            raise ArtifactError(
                f"{classifier_name} of {checkpoint.name} is no last layer of "
                f"{checkpoint.classes.n_classes} classes"
            )
        taken = {name: weights[name] for name in tensors}
        return replace(self, classifier=classifier, weights=taken, classifier_name=classifier_name)

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
        if export.classifier_name:
            return export._linked(checkpoint, list(export.weights), export.classifier_name)
        return export

    def save_for(self, checkpoint: Checkpoint, *, cached: bool = False) -> Artifact:
        """Write it to `path_of`, as made from this checkpoint."""
        if checkpoint.artifact is None:
            raise ValueError("the checkpoint must be written before its export")
        path = path_of(checkpoint, self.format, cached=cached)
        made = replace(self, preprocessing=checkpoint.preprocessing)
        return made.save(path, inputs={"checkpoint": checkpoint.artifact})

    @classmethod
    def _from_artifact(cls, artifact: Artifact) -> Self:
        name, body = artifact.path.name, parsed(ExportBody, artifact)
        preprocessing = checked_values(Preprocessing, artifact.preprocessing or {}, f"{name}, preprocessing")
        if body.classifier:
            # What the names stand for is in the network's file, see `load_for`.
            nothing = np.zeros((0, 0), np.float32)
            return cls(
                format=body.format,
                model=artifact.payload("graph"),
                classifier=nothing,
                figures=body.figures,
                preprocessing=preprocessing,
                weights=dict.fromkeys(body.tensors, nothing),
                classifier_name=body.classifier,
                artifact=artifact,
            )
        content, tensors = artifact.payload("classifier"), artifact.payloads["classifier"].name
        weight = read_header(content, tensors).get("weight")
        if weight is None or len(weight.shape) != 2 or weight.shape[0] != artifact.classes.n_classes:
            raise ArtifactError(
                f"{tensors} does not hold the last layer's weight, of shape "
                f"({artifact.classes.n_classes}, n_features)"
            )
        return cls(
            format=body.format,
            model=artifact.payload("model"),
            classifier=load_float32(content, {"weight": weight.shape}, tensors)["weight"],
            figures=body.figures,
            preprocessing=preprocessing,
            artifact=artifact,
        )

    def _content(self) -> Content:
        body: dict[str, Any] = {"format": self.format, "figures": dict(self.figures)}
        if self.classifier_name:
            body |= {"tensors": list(self.weights), "classifier": self.classifier_name}
            payloads = {"graph": (".onnx", self.model)}
        else:
            classifier = save({"weight": np.ascontiguousarray(self.classifier, dtype=np.float32)})
            payloads = {"model": (".onnx", self.model), "classifier": (".safetensors", classifier)}
        stated = None if self.preprocessing is None else self.preprocessing.model_dump(mode="json")
        return Content(body, payloads=payloads, preprocessing=stated)


def _shown(preprocessing: Preprocessing | None) -> object:
    return None if preprocessing is None else preprocessing.model_dump(mode="json")


def folder_of(checkpoint: Checkpoint, *, cached: bool = False) -> Path:
    """Folder of the exports of a network: its own, or, `cached`, one in the user's cache under its hash."""
    if checkpoint.artifact is None:
        raise ValueError("only a saved checkpoint has a folder for exports")
    if cached:
        return user_cache() / "exports" / checkpoint.artifact.sha256
    return checkpoint.artifact.path.parent


def path_of(checkpoint: Checkpoint, kind: str, *, cached: bool = False) -> Path:
    """The envelope of one export; see `folder_of`. A graph lies beside the weights that it refers to."""
    folder = folder_of(checkpoint, cached=cached)
    return (folder if cached or kind == GRAPH else folder / "onnx") / f"{kind}.json"


def is_there(checkpoint: Checkpoint, kind: str) -> bool:
    """Whether an export of exactly this network exists; one that is damaged is an error."""
    return _path_of_this(checkpoint, kind) is not None


def graph_beside(checkpoint: Checkpoint) -> Path | None:
    """The graph of exactly this network that takes its weights from the file beside it; None if there is
    none.
    """
    path = path_of(checkpoint, GRAPH)
    if not os.path.exists(path):
        return None
    stored = _stored(path)
    same = checkpoint.artifact is not None and stored.inputs.get("checkpoint") == checkpoint.artifact.sha256
    return path if same and "graph" in stored.payloads else None


def _stored(path: Path) -> Artifact:
    """An export whose payloads are not verified."""
    return read_artifact(path, kind=Export.KIND, schema_version=Export.SCHEMA_VERSION, verify_payloads=False)


def _path_of_this(checkpoint: Checkpoint, kind: str) -> Path | None:
    """The export of exactly this network, beside it or in the cache; its payloads are not verified."""
    # Earlier versions put graphs, with their weights inside, where other formats lie.
    places = [path_of(checkpoint, kind), folder_of(checkpoint) / "onnx" / f"{kind}.json"]
    with suppress(UsageError):  # a user without a home folder has no cache, and can predict nevertheless
        places.append(path_of(checkpoint, kind, cached=True))
    for path in places:
        # Not Path.exists: that raises where a folder on the way may not be entered.
        if os.path.exists(path):
            stored = _stored(path)
            if checkpoint.artifact and stored.inputs.get("checkpoint") == checkpoint.artifact.sha256:
                return path
    return None
