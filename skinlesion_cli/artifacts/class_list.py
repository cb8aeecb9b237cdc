"""The class list of a dataset on disk, and what is refused where two lists differ.

Every artifact about another list than `isic2018` holds its list in its envelope, so that it can be read
without the dataset. The file beside the manifest is the same list for people and programs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from skinlesion_cli.artifacts.base import Content, OpenBody, StoredArtifact, parsed
from skinlesion_cli.artifacts.envelope import RUN_AGAIN, UNSTATED_CLASSES, Artifact, read_artifact
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.errors import ArtifactError
from skinlesion_cli.taxonomy.class_list import ClassList
from skinlesion_cli.taxonomy.shipped import shipped


class ClassListBody(OpenBody):
    """The list as `ClassList.to_dict` gives it, which checks it itself."""


@dataclass(frozen=True)
class StoredClassList(StoredArtifact):
    """`dataset/classes.json`."""

    KIND: ClassVar[str] = "classes"
    HINT: ClassVar[str] = "Run `skinlesion download --from DIR` first."

    classes: ClassList
    artifact: Artifact | None = field(default=None, compare=False)

    @classmethod
    def _from_artifact(cls, artifact: Artifact) -> Self:
        parsed(ClassListBody, artifact)
        classes = ClassList.from_dict(artifact.body)
        if classes != artifact.classes:
            raise ArtifactError(f"{artifact.path.name} holds two class lists", RUN_AGAIN)
        return cls(classes, artifact)

    def _content(self) -> Content:
        return Content(self.classes.to_dict(), classes=self.classes)


def require_same_classes(lists: Mapping[str, ClassList], hint: str) -> None:
    """Refuse things of different class lists, by what they are called.

    Raises
    ------
    ArtifactError : naming the first two that differ, with their lists.
    """
    (first, expected), *others = lists.items()
    for name, classes in others:
        if not classes.agrees_with(expected):
            raise ArtifactError(
                f"{first} and {name} have different class lists: {expected.described}, and "
                f"{classes.described}",
                hint,
            )


def class_list_of(workspace: Workspace) -> ClassList:
    """The list of the dataset in a workspace, or of its ensemble; `isic2018` where it holds neither."""
    for path, kind, version in (
        (workspace.classes, StoredClassList.KIND, 1),
        (workspace.ensemble, "ensemble", 1),
    ):
        if path.exists():
            return read_artifact(path, kind=kind, schema_version=version, verify_payloads=False).classes
    return shipped(UNSTATED_CLASSES)


def as_figures(classes: ClassList) -> dict[str, Any]:
    """A list as results of stages state it, in JSON types."""
    return {"name": classes.name, "codes": list(classes.codes), "sha256": classes.sha256}
