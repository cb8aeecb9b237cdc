"""The quality gate on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from skinlesion_cli.artifacts.envelope import (
    Artifact,
    malformed_as_artifact_error,
    read_artifact,
    write_artifact,
)
from skinlesion_cli.decisions.quality_gate import QualityGate

KIND = "gate"
SCHEMA_VERSION = 1
HINT = "Run `skinlesion gate` first."


@dataclass(frozen=True)
class StoredGate:
    """`figures` holds the measured false alarm rate, with its support and interval."""

    gate: QualityGate
    figures: Mapping[str, Any]
    artifact: Artifact | None = field(default=None, compare=False)


def write(path: Path, stored: StoredGate, *, inputs: Mapping[str, Artifact]) -> Artifact:
    """Write a gate; `inputs` names the split whose training images it was fitted on."""
    gate = stored.gate
    return write_artifact(
        path,
        kind=KIND,
        schema_version=SCHEMA_VERSION,
        body={
            "names": list(gate.names),
            "mean": gate.mean.tolist(),
            "precision": gate.precision.tolist(),
            "quantiles": {check: found.tolist() for check, found in gate.quantiles.items()},
            "limits": dict(gate.limits),
            "figures": dict(stored.figures),
        },
        inputs=inputs,
    )


@malformed_as_artifact_error
def read(path: Path) -> StoredGate:
    """Read and verify a gate."""
    artifact = read_artifact(path, kind=KIND, schema_version=SCHEMA_VERSION, hint=HINT)
    body = artifact.body
    gate = QualityGate(
        names=tuple(body["names"]),
        mean=np.array(body["mean"]),
        precision=np.array(body["precision"]),
        quantiles={check: np.array(found) for check, found in body["quantiles"].items()},
        limits=dict(body["limits"]),
    )
    return StoredGate(gate, body["figures"], artifact)
