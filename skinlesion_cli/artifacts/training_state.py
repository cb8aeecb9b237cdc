"""The state of an unfinished training: everything needed to resume it, replaced as training advances."""

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
    """`identity` is the JSON of everything that determines the result; `tensors` the content of a safetensors file."""

    identity: str
    tensors: bytes
    counters: Mapping[str, Any]


def state_path(model_folder: Path) -> Path:
    return model_folder / "state" / "state.json"


def write(model_folder: Path, state: TrainingState) -> None:
    """Replace the saved state atomically."""
    write_artifact(
        state_path(model_folder),
        kind=KIND,
        schema_version=SCHEMA_VERSION,
        body={"identity": state.identity, "counters": dict(state.counters)},
        payloads={"tensors": (".safetensors", state.tensors)},
    )


@malformed_as_artifact_error
def read(model_folder: Path) -> TrainingState | None:
    """The saved state, verified; None if there is no unfinished training."""
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
    """Remove the state of a finished training."""
    folder = state_path(model_folder).parent
    if not folder.is_dir():
        return
    # The envelope is removed first: without it, the remaining files are not a training state.
    state_path(model_folder).unlink(missing_ok=True)
    for file in folder.iterdir():
        file.unlink(missing_ok=True)
    folder.rmdir()
