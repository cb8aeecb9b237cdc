"""An ensemble: which networks, with which weights, and what each was worth on the same validation images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from skinlesion_cli.artifacts.envelope import (
    Artifact,
    malformed_as_artifact_error,
    read_artifact,
    write_artifact,
)
from skinlesion_cli.decisions.ensemble import MergeRule
from skinlesion_cli.errors import ArtifactError

KIND = "ensemble"
SCHEMA_VERSION = 1
HINT = "Run `skinlesion ensemble` first."


@dataclass(frozen=True)
class Member:
    """One network. `checkpoint_sha256` is None for predictions that came from elsewhere (a CSV).

    Members of one `voice` (the folds of a network) always speak together; empty: each speaks for itself.
    """

    name: str
    checkpoint_sha256: str | None
    weight: float
    validation_bacc: float | None
    voice: str = ""


@dataclass(frozen=True)
class Ensemble:
    """Members in the order of their weights.

    `views` are the TTA views behind the validation predictions. `parameters` holds what a method needs beside
    the weights (`stacked`, `rank`).
    """

    members: tuple[Member, ...]
    method: str
    views: tuple[str, ...]
    figures: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    artifact: Artifact | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not self.members:
            raise ArtifactError("an ensemble without members")

    @property
    def rule(self) -> MergeRule:
        """How the members' probabilities become one."""
        reference = self.parameters.get("rank_reference")
        return MergeRule(
            self.method, self.weights, None if reference is None else np.array(reference, dtype=np.float32)
        )

    @property
    def voices(self) -> tuple[tuple[int, ...], ...]:
        """Indexes of the members of each voice."""
        found: dict[str, list[int]] = {}
        for index, member in enumerate(self.members):
            found.setdefault(member.voice or member.name, []).append(index)
        return tuple(map(tuple, found.values()))

    @property
    def voice_weights(self) -> tuple[float, ...]:
        """Of each voice, summing to 1."""
        return tuple(float(self.weights[list(indexes)].sum()) for indexes in self.voices)

    @property
    def weights(self) -> np.ndarray:
        """float64 (n_members,), summing to 1."""
        return np.array([member.weight for member in self.members], dtype=np.float64)


def write(path: Path, ensemble: Ensemble, *, inputs: Mapping[str, Artifact | str]) -> Artifact:
    """Write an ensemble; `inputs` name the predictions (`predictions:<member>`) that it was made from."""
    return write_artifact(
        path,
        kind=KIND,
        schema_version=SCHEMA_VERSION,
        body={
            "members": [asdict(member) for member in ensemble.members],
            "method": ensemble.method,
            "views": list(ensemble.views),
            "figures": dict(ensemble.figures),
            "parameters": dict(ensemble.parameters),
        },
        inputs=inputs,
    )


@malformed_as_artifact_error
def read(path: Path) -> Ensemble:
    """Read and verify an ensemble."""
    artifact = read_artifact(path, kind=KIND, schema_version=SCHEMA_VERSION, hint=HINT)
    body = artifact.body
    return Ensemble(
        members=tuple(Member(**member) for member in body["members"]),
        method=body["method"],
        views=tuple(body["views"]),
        figures=body["figures"],
        parameters=body["parameters"],
        artifact=artifact,
    )
