"""Fingerprints of the images that a model has seen in training, on disk.

They are packed with a model: they hold no id, no path and no pixels, and their order says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field
from safetensors.numpy import save

from skinlesion_cli.artifacts.base import Body, Content, StoredArtifact, parsed
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.schema import Sha256
from skinlesion_cli.artifacts.tensors import load_tensors
from skinlesion_cli.decisions.fingerprints import N_BYTES, FingerprintSet
from skinlesion_cli.errors import ArtifactError, name_items

_MOST_IMAGES = 1_000_000
_TENSOR = "fingerprints"


class TrainingImagesBody(Body):
    """How many images there are, and how many different fingerprints in the payload `fingerprints`.

    `n_images` counts images without a fingerprint, too. `checkpoints` are the hashes of the networks that
    were there when the images were listed.
    """

    method: Literal["dct-signs-256"]
    n_images: Annotated[int, Field(ge=1, le=_MOST_IMAGES)]
    n_fingerprints: Annotated[int, Field(ge=1, le=_MOST_IMAGES)]
    checkpoints: Annotated[tuple[Sha256, ...], Field(max_length=1000)]


@dataclass(frozen=True)
class StoredTrainingImages(StoredArtifact):
    """Attributes are those of `TrainingImagesBody`."""

    KIND: ClassVar[str] = "training-images"
    HINT: ClassVar[str] = "Run `skinlesion gate` in the workspace of the model; it writes them."

    fingerprints: FingerprintSet
    n_images: int
    checkpoints: tuple[str, ...] = ()
    artifact: Artifact | None = field(default=None, compare=False)

    @classmethod
    def _from_artifact(cls, artifact: Artifact) -> Self:
        body = parsed(TrainingImagesBody, artifact)
        expected = {_TENSOR: ("U8", (body.n_fingerprints, N_BYTES))}
        tensors = load_tensors(artifact.payload(_TENSOR), expected, artifact.path.name)
        if _TENSOR not in tensors:
            raise ArtifactError(f"{artifact.path.name} is damaged: it holds no fingerprints", cls.HINT)
        return cls(FingerprintSet(tensors[_TENSOR]), body.n_images, body.checkpoints, artifact)

    def _content(self) -> Content:
        codes = np.unique(self.fingerprints.codes, axis=0)
        body = TrainingImagesBody(
            method="dct-signs-256",
            n_images=self.n_images,
            n_fingerprints=len(codes),
            checkpoints=self.checkpoints,
        )
        content = save({_TENSOR: np.ascontiguousarray(codes)})
        return Content(body.model_dump(mode="json"), {_TENSOR: (".safetensors", content)})

    def require_networks(self, members: Iterable[Checkpoint]) -> None:
        """Refuse them where a network was trained later, and on another split.

        Raises
        ------
        ArtifactError : names the networks.
        """
        split = self.artifact.inputs.get("split") if self.artifact is not None else None
        others = [
            member.name
            for member in members
            if member.artifact is not None
            and member.artifact.sha256 not in self.checkpoints
            and (split is None or member.artifact.inputs.get("split") != split)
        ]
        if others:
            raise ArtifactError(
                f"the list of training images does not cover {name_items(others)}: trained later, "
                "on another split",
                "Run `skinlesion gate` again.",
            )
