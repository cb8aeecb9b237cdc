"""The split: which images train, which validate, which test. A lesion is never on two sides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import pandas as pd
from pydantic import Field

from skinlesion_cli.artifacts import tables
from skinlesion_cli.artifacts.base import Body, Content, StoredArtifact, parsed
from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.schema import Count, Text
from skinlesion_cli.errors import ArtifactError, DataError, name_items

PARTS = ("train", "val", "test")
HELD_OUT = ("test", "val")


class SplitBody(Body):
    """How the parts were made, and how many images each has."""

    strategy: Text
    leaks_lesions: bool
    counts: dict[Text, Count]
    leaking_images: dict[Text, Count] = Field(default_factory=dict)


@dataclass(frozen=True)
class Split(StoredArtifact):
    """`table` has the columns `COLUMNS`, sorted by id; `fold` is `0` ... `k-1`, or empty without folds.

    `leaks_lesions` is True only for the published per-image split, which is kept for comparison;
    `leaking_images` then counts, for each held-out part, the images whose lesion is in another part too.
    """

    KIND: ClassVar[str] = "split"
    COLUMNS: ClassVar[tuple[str, ...]] = ("id", "part", "fold")
    HINT: ClassVar[str] = "Run `skinlesion download --from DIR` first."

    table: pd.DataFrame
    strategy: str
    seed: int
    leaks_lesions: bool = False
    leaking_images: Mapping[str, int] = field(default_factory=dict)
    artifact: Artifact | None = field(default=None, compare=False)

    def ids(self, part: str) -> list[str]:
        """Image ids of one part, sorted."""
        ids: list[str] = self.table.loc[self.table["part"] == part, "id"].tolist()
        return ids

    def fold_ids(self, fold: int) -> tuple[list[str], list[str]]:
        """Ids to train on and ids held out for one fold."""
        folds = self.table[self.table["fold"] != ""]
        held_out = folds["fold"] == str(fold)
        return folds.loc[~held_out, "id"].tolist(), folds.loc[held_out, "id"].tolist()

    def fitted_and_judged(self, fold: int | None) -> tuple[list[str], list[str]]:
        """Ids that a network trains on and ids that judge it: of this fold, or of the one split."""
        return (self.ids("train"), self.ids("val")) if fold is None else self.fold_ids(fold)

    def seen_ids(self) -> list[str]:
        """Ids of all images that a network is trained on, or that decisions are fitted to: all but the test
        part.
        """
        seen = (self.table["part"] != "test") | (self.table["fold"] != "")
        ids: list[str] = self.table.loc[seen, "id"].tolist()
        return ids

    @property
    def n_folds(self) -> int:
        return len({fold for fold in self.table["fold"] if fold != ""})

    @property
    def figures(self) -> dict[str, Any]:
        """How it was made, in JSON types."""
        return {
            "strategy": self.strategy,
            "seed": self.seed,
            "folds": self.n_folds,
            "leaks_lesions": self.leaks_lesions,
        }

    # A split cannot be checked without the manifest whose images and lesions it divides.
    @classmethod
    def load(cls, path: Path, manifest: Manifest) -> Self:  # type: ignore[override]
        """Read and verify a split; it must have been made from this manifest.

        Raises
        ------
        ArtifactError : see `StoredArtifact.load`; or it was made from another manifest.
        DataError : it puts one lesion or patient on two sides; see `check_leakage`.
        """
        split = super().load(path)
        if manifest.artifact is not None and split.artifact is not None:
            split.artifact.require_input("manifest", manifest.artifact)
        check_leakage(split, manifest)
        return split

    def save(self, path: Path, manifest: Manifest) -> Artifact:  # type: ignore[override]
        """Check the split against its manifest and write it."""
        check_leakage(self, manifest)
        if manifest.artifact is None:
            raise ValueError("the manifest must be written before its split")
        return super().save(path, inputs={"manifest": manifest.artifact})

    @classmethod
    def _from_artifact(cls, artifact: Artifact) -> Self:
        body = parsed(SplitBody, artifact)
        table = tables.read_csv(artifact.payload("table"), artifact.path.name)
        tables.require_columns(table, cls.COLUMNS, artifact.path.name)
        odd = table["id"][~(table["part"].isin(PARTS) & table["fold"].str.fullmatch(r"[0-9]{0,3}"))]
        if len(odd):
            raise ArtifactError(f"{artifact.path.name} has an unknown part or fold for {name_items(odd)}")
        return cls(
            table=table,
            strategy=body.strategy,
            seed=artifact.seed or 0,
            leaks_lesions=body.leaks_lesions,
            leaking_images=body.leaking_images,
            artifact=artifact,
        )

    def _content(self) -> Content:
        table = self.table.loc[:, list(self.COLUMNS)].sort_values("id", kind="stable")
        body = SplitBody(
            strategy=self.strategy,
            leaks_lesions=self.leaks_lesions,
            counts={part: int((table["part"] == part).sum()) for part in PARTS},
            leaking_images=dict(self.leaking_images),
        )
        return Content(
            body.model_dump(mode="json"), payloads={"table": (".csv", tables.to_csv(table))}, seed=self.seed
        )


def leaking_lesions(split_table: pd.DataFrame, manifest: Manifest) -> list[str]:
    """Lesions that have images in more than one part, or in more than one fold."""
    return _on_several_sides(split_table, manifest, "lesion_id")


def leaking_patients(split_table: pd.DataFrame, manifest: Manifest) -> list[str]:
    """Patients, where known, who have images in more than one part, or in more than one fold."""
    return _on_several_sides(split_table, manifest, "patient_id")


def _on_several_sides(split_table: pd.DataFrame, manifest: Manifest, column: str) -> list[str]:
    joined = split_table.merge(manifest.table[["id", column]], on="id")
    known = joined[joined[column] != ""]
    sides = (known["part"] + "/" + known["fold"]).groupby(known[column]).nunique()
    return sorted(sides[sides > 1].index)


def check_leakage(split: Split, manifest: Manifest) -> None:
    """The leakage guard: refuse a split that puts one lesion, or one patient, on two sides.

    Raises
    ------
    DataError : naming the lesions or patients; or the split names unknown images, an image twice,
        or an unknown part.
    """
    unknown_ids = sorted(set(split.table["id"]) - set(manifest.table["id"]))
    if unknown_ids:
        raise DataError(f"the split names images that the manifest lacks: {name_items(unknown_ids)}")
    twice = split.table["id"][split.table["id"].duplicated()].tolist()
    if twice:
        raise DataError(f"the split names these images more than once: {name_items(twice)}")
    unknown = sorted(set(split.table["part"]) - set(PARTS))
    if unknown:
        raise DataError(f"the split has unknown parts: {name_items(unknown)}", "Known: " + ", ".join(PARTS))
    for kind, leaking in (
        ("lesions", leaking_lesions(split.table, manifest)),
        ("patients", leaking_patients(split.table, manifest)),
    ):
        if leaking and not split.leaks_lesions:
            raise DataError(
                f"these {kind} have images on more than one side of the split: {name_items(leaking)}",
                "Figures on such a split would be too good. Make a new one with `skinlesion download`.",
            )
