"""The labelled lesions that are most like an image to one of the networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.artifacts.similar_cases import load_cases
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.decisions.quality_gate import QualityGate
from skinlesion_cli.decisions.similar_cases import N_COUNTED, CaseTable, label_counts
from skinlesion_cli.errors import ArtifactError, name_items
from skinlesion_cli.inference.engine import Engine
from skinlesion_cli.taxonomy.class_list import ClassList


@dataclass(frozen=True)
class SimilarCases:
    """`shown` cases are named for each image, and the labels of the nearest 20 counted.

    `lesion_ids` and `images` (see `artifacts.similar_cases.CaseIds`) are None where the model came without
    them. `sha256` is that of the table.
    """

    table: CaseTable
    shown: int
    sha256: str
    classes: ClassList
    lesion_ids: Sequence[str] | None = None
    images: Sequence[str] | None = None

    @classmethod
    def load(cls, workspace: Workspace, bundle: Bundle, shown: int) -> Self:
        """Those of a model; errors as in `load_cases`."""
        stored, ids = load_cases(workspace, bundle)
        digest = stored.artifact.sha256 if stored.artifact else ""
        if ids is None:
            return cls(stored.table, shown, digest, bundle.classes)
        return cls(stored.table, shown, digest, bundle.classes, ids.lesion_ids, ids.images)

    def of(self, features: np.ndarray) -> list[dict[str, Any]]:
        """For each image, by its pooled features (n_images, n_features), in JSON types: `nearest`, how many
        neighbours were counted; `labels`, their labels; `cases`, the nearest ones, with label, lesion id and
        image where they are known, and distance (see `CaseTable.nearest`).
        """
        rows, distances = self.table.nearest(features, max(N_COUNTED, self.shown))
        return [self._of_one(each, away) for each, away in zip(rows, distances, strict=True)]

    def _of_one(self, rows: np.ndarray, distances: np.ndarray) -> dict[str, Any]:
        labels = self.table.labels[rows]
        counted = labels[:N_COUNTED]
        cases = [
            {
                "label": self.classes.codes[label],
                "lesion_id": self.lesion_ids[row] if self.lesion_ids is not None else None,
                "image": self.images[row] if self.images is not None else None,
                "distance": round(float(distance), 3),
            }
            for row, label, distance in zip(rows, labels, distances, strict=True)
        ]
        return {
            "nearest": len(counted),
            "labels": label_counts(counted, self.classes),
            "cases": cases[: self.shown],
        }


def describe_similar(similar: Mapping[str, Any]) -> str:
    """The counts in words.

    >>> describe_similar({"nearest": 20, "labels": {"NV": 14, "MEL": 6}})
    'of the 20 nearest: 14 NV, 6 MEL'
    """
    counts = ", ".join(f"{count} {name}" for name, count in similar["labels"].items())
    return f"of the {similar['nearest']} nearest: {counts}"


def pooled_member(gate: QualityGate | None, similar: SimilarCases | None, engine: Engine) -> int | None:
    """The member (by index) whose pooled features the quality gate and the search for similar cases use; None
    where neither uses any.

    Raises
    ------
    ArtifactError : they were fitted with a network that the ensemble lacks, or with two.
    """
    used = {
        what: network
        for what, network in (
            ("quality gate", gate.features.network if gate is not None and gate.features else None),
            ("table of similar cases", similar.table.network if similar is not None else None),
        )
        if network is not None
    }
    if not used:
        return None
    names = [member.name for member in engine.members]
    for what, network in used.items():
        if network not in names or len(set(used.values())) > 1:
            raise ArtifactError(
                f"the {what} was fitted with the network {network}, but the ensemble has {name_items(names)}"
                if network not in names
                else "the quality gate and the table of similar cases were fitted with two networks: "
                + name_items(used.values()),
                "Run `skinlesion gate` again.",
            )
    return names.index(next(iter(used.values())))
