"""An evaluation: figures with their intervals, pictures, and the official challenge table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from skinlesion_cli.artifacts import tables
from skinlesion_cli.artifacts.base import Content, OpenBody, StoredArtifact, parsed
from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.files import atomic_write, sha256_bytes
from skinlesion_cli.artifacts.schema import FileName, Sha256
from skinlesion_cli.taxonomy.class_list import ClassList


class EvaluationBody(OpenBody):
    """Figures, as the evaluation printed them, beside the hashes of the files that belong to it."""

    files: dict[FileName, Sha256]


@dataclass(frozen=True)
class Evaluation(StoredArtifact):
    """`body` holds the figures, in JSON types; `files` the SHA-256 of the pictures and tables beside it.

    These files are for people: they are not verified when the figures are loaded.
    """

    KIND: ClassVar[str] = "evaluation"
    HINT: ClassVar[str] = "Run `skinlesion evaluate` first."

    body: Mapping[str, Any]
    files: Mapping[str, str]
    classes: ClassList = field(kw_only=True)
    artifact: Artifact | None = field(default=None, compare=False)

    @classmethod
    def _from_artifact(cls, artifact: Artifact) -> Self:
        files = parsed(EvaluationBody, artifact).files
        return cls(
            {key: value for key, value in artifact.body.items() if key != "files"},
            files,
            classes=artifact.classes,
            artifact=artifact,
        )

    def _content(self) -> Content:
        return Content({"files": dict(self.files)} | defined(self.body), classes=self.classes)


def defined(value: Any) -> Any:
    """The same value in JSON types, with None for NaN: undefined values stay undefined."""
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


def challenge_csv(ids: list[str], values: np.ndarray, codes: Sequence[str]) -> bytes:
    """The official layout of ISIC 2018 Task 3: `image` and the classes, every value a float in [0, 1]."""
    columns = {code: tables.shortest(values[:, index]) for index, code in enumerate(codes)}
    return tables.to_csv(pd.DataFrame({"image": ids} | columns))


def write_evaluation(
    folder: Path,
    body: Mapping[str, Any],
    files: Mapping[str, bytes],
    *,
    inputs: Mapping[str, Artifact | str],
    classes: ClassList,
) -> Artifact:
    """Write the files under their own names, then `evaluation.json` with their hashes."""
    for name, data in files.items():
        atomic_write(folder / name, data)
    hashes = {name: sha256_bytes(data) for name, data in files.items()}
    return Evaluation(body, hashes, classes=classes).save(folder / "evaluation.json", inputs=inputs)
