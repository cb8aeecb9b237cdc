"""A training that is under way: all that is needed to go on with it, replaced as it advances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skinlesion_cli.artifacts.envelope import malformed_as_artifact_error, read_artifact, write_artifact

KIND = "training-state"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class TrainingState:
    """`identity` is a hash of everything that decides the result; `tensors` a safetensors file's content."""

    identity: str
    tensors: bytes
    counters: Mapping[str, Any]


def state_path(model_folder: Path) -> Path:
    return model_folder / "state" / "state.json"


def write(model_folder: Path, state: TrainingState) -> None:
    """Replace the saved state in one step."""
    write_artifact(
        state_path(model_folder),
        kind=KIND,
        schema_version=SCHEMA_VERSION,
        body={"identity": state.identity, "counters": dict(state.counters)},
        payloads={"tensors": (".safetensors", state.tensors)},
    )


@malformed_as_artifact_error
def read(model_folder: Path) -> TrainingState | None:
    """The saved state, verified; None where no training is under way."""
    path = state_path(model_folder)
    if not path.exists():
        return None
    artifact = read_artifact(path, kind=KIND, schema_version=SCHEMA_VERSION)
    return TrainingState(
        identity=artifact.body["identity"],
        tensors=artifact.payloads["tensors"].read_bytes(),
        counters=artifact.body["counters"],
    )


def remove(model_folder: Path) -> None:
    """Drop the state; a finished network does not need it."""
    folder = state_path(model_folder).parent
    if not folder.is_dir():
        return
    # The envelope goes first: without it the rest is not a state any more.
    state_path(model_folder).unlink(missing_ok=True)
    for file in folder.iterdir():
        file.unlink(missing_ok=True)
    folder.rmdir()
