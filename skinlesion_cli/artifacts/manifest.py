"""The manifest: the images of a dataset with their classes and lesions."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import pandas as pd

from skinlesion_cli.artifacts import tables
from skinlesion_cli.artifacts.base import Body, Content, StoredArtifact, parsed
from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.schema import ClassName, Count, Text
from skinlesion_cli.errors import ArtifactError, DataError, name_items
from skinlesion_cli.taxonomy.class_list import ClassList


class ManifestBody(Body):
    """Counts of the table, and the terms of use of the images."""

    images: Count
    lesions: Count
    class_counts: dict[ClassName, Count]
    licence: Text
    attribution: Text


@dataclass(frozen=True)
class Manifest(StoredArtifact):
    """Images and their metadata; `table` has the columns `COLUMNS`, all text, sorted by id.

    Labels are codes of `classes`, the class list that all later stages work with.
    """

    KIND: ClassVar[str] = "manifest"
    # `file` is relative to the image folder of the dataset. `part` is where the source puts the image
    # (train, val, test; empty if it does not say). `source` names the dataset that the image is from. An
    # unknown age, sex, site or patient is the empty string.
    COLUMNS: ClassVar[tuple[str, ...]] = (
        "id",
        "file",
        "sha256",
        "label",
        "lesion_id",
        "age_years",
        "sex",
        "site",
        "part",
        "source",
        "patient_id",
    )
    # Manifests that were written before these columns existed lack them; nothing is known there.
    ADDED_COLUMNS: ClassVar[tuple[str, ...]] = ("patient_id",)
    HINT: ClassVar[str] = "Run `skinlesion download --from DIR` first."

    table: pd.DataFrame
    licence: str
    attribution: str
    classes: ClassList = field(kw_only=True)
    artifact: Artifact | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        unknown = {name: "" for name in self.ADDED_COLUMNS if name not in self.table.columns}
        object.__setattr__(self, "table", self.table.assign(**unknown))
        check(self.table, self.classes)

    @property
    def class_counts(self) -> dict[str, int]:
        counts = Counter(self.table["label"])
        return {name: counts.get(name, 0) for name in self.classes.codes}

    @property
    def n_lesions(self) -> int:
        return int(self.table["lesion_id"].nunique())

    @property
    def figures(self) -> dict[str, Any]:
        """How many images there are, by class and source, in JSON types."""
        return {
            "images": len(self.table),
            "lesions": self.n_lesions,
            "class_counts": self.class_counts,
            "sources": dict(sorted(Counter(self.table["source"]).items())),
        }

    def rows(self, ids: list[str]) -> pd.DataFrame:
        """The rows of these ids, in this order."""
        return self.table.set_index("id", drop=False).loc[ids].reset_index(drop=True)

    @classmethod
    def _from_artifact(cls, artifact: Artifact) -> Self:
        body = parsed(ManifestBody, artifact)
        table = tables.read_csv(artifact.payload("table"), artifact.path.name)
        tables.require_columns(table, ("id", "file"), artifact.path.name)
        outside = table["id"][~table["file"].map(_is_below_its_folder)]
        if len(outside):
            raise ArtifactError(
                f"{artifact.path.name} names files outside of its images: {name_items(outside)}"
            )
        return cls(
            table=table,
            licence=body.licence,
            attribution=body.attribution,
            classes=artifact.classes,
            artifact=artifact,
        )

    def _content(self) -> Content:
        table = self.table.loc[:, list(self.COLUMNS)].sort_values("id", kind="stable")
        body = ManifestBody(
            images=len(table),
            lesions=self.n_lesions,
            class_counts=self.class_counts,
            licence=self.licence,
            attribution=self.attribution,
        )
        return Content(
            body.model_dump(mode="json"),
            payloads={"table": (".csv", tables.to_csv(table))},
            classes=self.classes,
        )


def _is_below_its_folder(file: str) -> bool:
    """Whether a path stays below the folder that it is relative to, on every operating system."""
    parts = re.split(r"[/\\]", file)
    return file != "" and parts[0] != "" and ".." not in parts and not re.match(r"[A-Za-z]:", file)


def check(table: pd.DataFrame, classes: ClassList) -> None:
    """Refuse a table with duplicate ids, unknown classes or images without a lesion.

    Raises
    ------
    DataError : naming the offenders.
    """
    tables.require_columns(table, Manifest.COLUMNS, "the manifest")
    duplicates = sorted(identity for identity, count in Counter(table["id"]).items() if count > 1)
    if duplicates:
        raise DataError(f"these image ids occur more than once: {name_items(duplicates)}")
    unknown = table[~table["label"].isin(classes.codes)]
    if len(unknown):
        named = [f"{row.id} ({row.label or 'no class'})" for row in unknown.itertuples()]
        raise DataError(
            f"these images have a class that is not known: {name_items(named)}",
            "Known classes: " + ", ".join(classes.codes),
        )
    without_lesion = table[table["lesion_id"] == ""]["id"].tolist()
    if without_lesion:
        raise DataError(
            f"these images have no lesion id: {name_items(without_lesion)}",
            "If an image is the only one of its lesion, use its own id.",
        )
