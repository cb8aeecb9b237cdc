"""The split: which images train, which validate, which test. No lesion on two sides, ever."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from skinlesion_cli.artifacts import tables
from skinlesion_cli.artifacts.envelope import (
    Artifact,
    malformed_as_artifact_error,
    read_artifact,
    write_artifact,
)
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.errors import DataError, name_items

KIND = "split"
SCHEMA_VERSION = 1
PARTS = ("train", "val", "test")
HELD_OUT = ("test", "val")
COLUMNS = ("id", "part", "fold")
HINT = "Run `skinlesion download --from DIR` first."


@dataclass(frozen=True)
class Split:
    """`table` has the columns `COLUMNS`, sorted by id; `fold` is `0` ... `k-1`, or empty without folds.

    `leaks_lesions` is True only for the published per-image split, which is kept for comparison.
    """

    table: pd.DataFrame
    strategy: str
    seed: int
    leaks_lesions: bool = False
    artifact: Artifact | None = None

    def ids(self, part: str) -> list[str]:
        """Image ids of one part, sorted."""
        return self.table.loc[self.table["part"] == part, "id"].tolist()

    def fold_ids(self, fold: int) -> tuple[list[str], list[str]]:
        """Ids to train on and ids held out for one fold."""
        folds = self.table[self.table["fold"] != ""]
        held_out = folds["fold"] == str(fold)
        return folds.loc[~held_out, "id"].tolist(), folds.loc[held_out, "id"].tolist()

    def fitted_and_judged(self, fold: int | None) -> tuple[list[str], list[str]]:
        """Ids that a network trains on and ids that judge it: of this fold, or of the one split."""
        return (self.ids("train"), self.ids("val")) if fold is None else self.fold_ids(fold)

    @property
    def n_folds(self) -> int:
        return len({fold for fold in self.table["fold"] if fold != ""})


def leaking_lesions(split_table: pd.DataFrame, manifest: Manifest) -> list[str]:
    """Lesions that have images in more than one part, or in more than one fold."""
    joined = split_table.merge(manifest.table[["id", "lesion_id"]], on="id", how="left")
    sides = (joined["part"] + "/" + joined["fold"]).groupby(joined["lesion_id"]).nunique()
    return sorted(sides[sides > 1].index)


def guard(split: Split, manifest: Manifest) -> None:
    """The leakage guard: refuse a split that puts one lesion on two sides.

    Raises
    ------
    DataError : naming the lesions; or the split names unknown_ids, an image twice, or an unknown part.
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
    leaking = leaking_lesions(split.table, manifest)
    if leaking and not split.leaks_lesions:
        raise DataError(
            f"these lesions have images on more than one side of the split: {name_items(leaking)}",
            "Figures on such a split would be too good. Make a new one with `skinlesion download`.",
        )


def write(path: Path, split: Split, manifest: Manifest, *, body: Mapping[str, Any] | None = None) -> Artifact:
    """Check the split against its manifest and write it."""
    guard(split, manifest)
    table = split.table.loc[:, list(COLUMNS)].sort_values("id", kind="stable")
    counts = {part: int((table["part"] == part).sum()) for part in PARTS}
    if manifest.artifact is None:
        raise ValueError("the manifest must be written before its split")
    return write_artifact(
        path,
        kind=KIND,
        schema_version=SCHEMA_VERSION,
        body={"strategy": split.strategy, "leaks_lesions": split.leaks_lesions, "counts": counts}
        | dict(body or {}),
        payloads={"table": (".csv", tables.to_csv(table))},
        inputs={"manifest": manifest.artifact},
        seed=split.seed,
    )


@malformed_as_artifact_error
def read(path: Path, manifest: Manifest) -> Split:
    """Read and verify a split; it must have been made from this manifest and leak no lesion."""
    artifact = read_artifact(path, kind=KIND, schema_version=SCHEMA_VERSION, hint=HINT)
    if manifest.artifact is not None:
        artifact.require_input("manifest", manifest.artifact)
    split = Split(
        table=tables.read_csv(artifact.payloads["table"], path.name),
        strategy=artifact.body["strategy"],
        seed=int(artifact.seed or 0),
        leaks_lesions=artifact.body["leaks_lesions"],
        artifact=artifact,
    )
    guard(split, manifest)
    return split
