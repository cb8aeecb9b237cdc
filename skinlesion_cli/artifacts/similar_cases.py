"""The table of labelled lesions on disk, and, apart from it, which lesions they are.

The table alone goes into a packed model: it holds features and labels, and no id of an image or a lesion.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import Field
from safetensors.numpy import save

from skinlesion_cli.artifacts.base import Body, Content, StoredArtifact, parsed
from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.schema import FileName, JsonObject
from skinlesion_cli.artifacts.tensors import load_tensors
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.decisions.similar_cases import CaseTable
from skinlesion_cli.errors import ArtifactError

_MOST_LESIONS = 1_000_000


class CasesBody(Body):
    """Whose features they are, and the sizes of the tensors in the payload `table`."""

    network: FileName
    checkpoint_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    n_features: Annotated[int, Field(ge=1, le=100_000)]
    n_components: Annotated[int, Field(ge=1, le=4096)]
    n_lesions: Annotated[int, Field(ge=1, le=_MOST_LESIONS)]
    figures: JsonObject


@dataclass(frozen=True)
class StoredCases(StoredArtifact):
    """`checkpoint_sha256` is that of the network; `figures` says how many images and lesions, and how often
    neighbours have the same label."""

    KIND: ClassVar[str] = "cases"
    HINT: ClassVar[str] = "Run `skinlesion gate` in the workspace of the model; it writes the table of cases."

    table: CaseTable
    checkpoint_sha256: str
    figures: Mapping[str, Any]
    artifact: Artifact | None = field(default=None, compare=False)

    @classmethod
    def _from_artifact(cls, artifact: Artifact) -> Self:
        body = parsed(CasesBody, artifact)
        expected = {
            "mean": ("F32", (body.n_features,)),
            "components": ("F16", (body.n_components, body.n_features)),
            "steps": ("F32", (body.n_components,)),
            "codes": ("I8", (body.n_lesions, body.n_components)),
            "labels": ("U8", (body.n_lesions,)),
        }
        tensors = load_tensors(artifact.payload("table"), expected, artifact.path.name)
        missing = [name for name in expected if name not in tensors]
        bad = [name for name, values in tensors.items() if not np.isfinite(values).all()]
        n_classes = artifact.classes.n_classes
        if missing or bad or (tensors["steps"] <= 0).any() or (tensors["labels"] >= n_classes).any():
            named = ", ".join(missing or bad or ["steps or labels"])
            raise ArtifactError(f"{artifact.path.name} is damaged: {named}", cls.HINT)
        table = CaseTable(
            body.network,
            tensors["mean"],
            tensors["components"].astype(np.float32),
            tensors["steps"],
            tensors["codes"],
            tensors["labels"],
        )
        return cls(table, body.checkpoint_sha256, body.figures, artifact)

    def _content(self) -> Content:
        table = self.table
        tensors = {
            "mean": table.mean.astype(np.float32),
            "components": table.components.astype(np.float16),
            "steps": table.steps.astype(np.float32),
            "codes": table.codes.astype(np.int8),
            "labels": table.labels.astype(np.uint8),
        }
        content = save({name: np.ascontiguousarray(values) for name, values in tensors.items()})
        n_components, n_features = table.components.shape
        body = {
            "network": table.network,
            "checkpoint_sha256": self.checkpoint_sha256,
            "n_features": n_features,
            "n_components": n_components,
            "n_lesions": table.n_lesions,
            "figures": dict(self.figures),
        }
        return Content(body, {"table": (".safetensors", content)})


class CaseIdsBody(Body):
    """How many there are."""

    n_lesions: Annotated[int, Field(ge=1, le=_MOST_LESIONS)]


@dataclass(frozen=True)
class CaseIds(StoredArtifact):
    """Lesion id and the most typical image of each row of the table of cases."""

    KIND: ClassVar[str] = "case-ids"
    HINT: ClassVar[str] = StoredCases.HINT

    lesion_ids: tuple[str, ...]
    images: tuple[str, ...]
    artifact: Artifact | None = field(default=None, compare=False)

    @classmethod
    def _from_artifact(cls, artifact: Artifact) -> Self:
        body = parsed(CaseIdsBody, artifact)
        stored = json.loads(artifact.payload("ids"))
        lesion_ids, images = tuple(stored["lesion_ids"]), tuple(stored["images"])
        for ids in (lesion_ids, images):
            if len(ids) != body.n_lesions or not all(isinstance(identity, str) for identity in ids):
                raise ArtifactError(f"{artifact.path.name} is damaged: its ids", cls.HINT)
        return cls(lesion_ids, images, artifact)

    def _content(self) -> Content:
        ids = {"lesion_ids": list(self.lesion_ids), "images": list(self.images)}
        content = json.dumps(ids, ensure_ascii=False).encode()
        return Content({"n_lesions": len(self.lesion_ids)}, {"ids": (".json", content)})


def load_cases(workspace: Workspace, bundle: Bundle) -> tuple[StoredCases, CaseIds | None]:
    """The cases of a model, and their ids where it is in the workspace that it was trained in.

    Raises
    ------
    ArtifactError : there are none, or they are of another network.
    """
    stored = StoredCases.load(workspace.cases)
    named = {member.name: member for member in bundle.members}
    member = named.get(stored.table.network)
    present = member.artifact.sha256 if member is not None and member.artifact is not None else None
    if present != stored.checkpoint_sha256:
        present_name = present[:12] if present else "no network of this name"
        raise ArtifactError(
            f"{workspace.cases.name} holds features of {stored.table.network} "
            f"{stored.checkpoint_sha256[:12]}, but the model has {present_name}",
            "Run `skinlesion gate` again.",
        )
    if not os.path.lexists(workspace.case_ids):
        return stored, None
    ids = CaseIds.load(workspace.case_ids)
    assert ids.artifact is not None
    assert stored.artifact is not None
    ids.artifact.require_input("cases", stored.artifact)
    return stored, ids
