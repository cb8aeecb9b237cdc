"""The state of an unfinished training: everything needed to resume it, replaced as it advances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field

from skinlesion_cli.artifacts.base import Body, Content, OpenBody, StoredArtifact, parsed
from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.schema import Text
from skinlesion_cli.artifacts.tensors import read_header

_Counter = Annotated[int, Field(ge=0, le=2**53)]


class ProgressBody(OpenBody):
    """Position in the training; the trainer's own counters stand beside these."""

    epoch: _Counter = 0
    step: _Counter = 0


class CountersBody(OpenBody):
    """What a trainer counts; see `models.training.state`."""

    progress: ProgressBody = ProgressBody()


class TrainingStateBody(Body):
    """`identity` in JSON, and the counters."""

    identity: Text
    counters: CountersBody


@dataclass(frozen=True)
class TrainingState(StoredArtifact):
    """`identity` holds, as JSON text, everything that decides the result.

    `tensors` is the content of a safetensors file; `counters` are JSON types.
    """

    KIND: ClassVar[str] = "training-state"

    identity: str
    tensors: bytes
    counters: Mapping[str, Any]
    artifact: Artifact | None = field(default=None, compare=False)

    @property
    def epochs_finished(self) -> int:
        """How many epochs of the training are done."""
        return int(self.counters.get("progress", {}).get("epoch", 0))

    @classmethod
    def _from_artifact(cls, artifact: Artifact) -> Self:
        body = parsed(TrainingStateBody, artifact)
        tensors = artifact.payload("tensors")
        read_header(tensors, artifact.payloads["tensors"].name)
        return cls(body.identity, tensors, body.counters.model_dump(exclude_unset=True), artifact)

    def _content(self) -> Content:
        return Content(
            {"identity": self.identity, "counters": dict(self.counters)},
            payloads={"tensors": (".safetensors", self.tensors)},
        )


def remove_state(path: Path) -> None:
    """Remove a training state and its folder; a finished network does not need it."""
    if not path.parent.is_dir():
        return
    # The envelope is removed first: without it the rest is no longer a state.
    path.unlink(missing_ok=True)
    for file in path.parent.iterdir():
        file.unlink(missing_ok=True)
    path.parent.rmdir()
