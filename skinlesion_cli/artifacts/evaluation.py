"""An evaluation: figures with their intervals, pictures, and the official challenge table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skinlesion_cli.artifacts import tables
from skinlesion_cli.artifacts.envelope import Artifact, read_artifact, write_artifact
from skinlesion_cli.artifacts.files import atomic_write, sha256_bytes
from skinlesion_cli.taxonomy import CLASS_NAMES

KIND = "evaluation"
SCHEMA_VERSION = 1
HINT = "Run `skinlesion evaluate` first."


@dataclass(frozen=True)
class Evaluation:
    """`body` is what the evaluation found, in JSON types; `files` name the pictures and tables beside it."""

    body: Mapping[str, Any]
    files: Mapping[str, str]
    artifact: Artifact


def defined(value: Any) -> Any:
    """The same in JSON types, NaN as None: undefined stays undefined."""
    if isinstance(value, Mapping):
        return {str(key): defined(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [defined(inner) for inner in value]
    if isinstance(value, np.ndarray):
        return defined(value.tolist())
    if isinstance(value, np.generic):
        return defined(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def challenge_csv(ids: list[str], values: np.ndarray) -> bytes:
    """The official ISIC 2018 Task 3 table: `image` and the seven classes, every value a float in [0, 1]."""
    columns = {name: tables.shortest(values[:, index]) for index, name in enumerate(CLASS_NAMES)}
    return tables.to_csv(pd.DataFrame({"image": ids} | columns))


def write(
    folder: Path, body: Mapping[str, Any], files: Mapping[str, bytes], *, inputs: Mapping[str, Artifact | str]
) -> Artifact:
    """Write `evaluation.json`, and the files beside it under their own names; the JSON, with their hashes, last."""
    for name, data in files.items():
        atomic_write(folder / name, data)
    stated = {name: sha256_bytes(data) for name, data in files.items()}
    return write_artifact(
        folder / "evaluation.json",
        kind=KIND,
        schema_version=SCHEMA_VERSION,
        body={"files": stated} | defined(body),
        inputs=inputs,
    )


def read(folder: Path) -> Evaluation:
    """Read and verify an evaluation's figures (the files beside it are for people and not verified)."""
    artifact = read_artifact(folder / "evaluation.json", kind=KIND, schema_version=SCHEMA_VERSION, hint=HINT)
    body = dict(artifact.body)
    return Evaluation(body, body.pop("files"), artifact)
