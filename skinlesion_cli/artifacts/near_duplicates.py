"""Near duplicates that were found in a dataset, and what was done about them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from skinlesion_cli.artifacts import tables
from skinlesion_cli.artifacts.envelope import Artifact, read_artifact, write_artifact
from skinlesion_cli.artifacts.manifest import Manifest

KIND = "duplicates"
SCHEMA_VERSION = 1
# `same_lesion`, `across_parts`: yes or no. `correlation` is that of the details of the aligned images.
COLUMNS = ("first", "second", "distance_bits", "correlation", "same_lesion", "across_parts")


@dataclass(frozen=True)
class Duplicates:
    """Pairs of near duplicates; `table` has the columns `COLUMNS`, all text, the most alike first.

    `across_parts` speaks of the split that was made in the same run; `moved` says that this split keeps such
    pairs on one side.
    """

    table: pd.DataFrame
    moved: bool
    artifact: Artifact | None = None

    @property
    def n_across_lesions(self) -> int:
        return int((self.table["same_lesion"] == "no").sum())

    @property
    def n_across_parts(self) -> int:
        return int((self.table["across_parts"] == "yes").sum())


def write(path: Path, duplicates: Duplicates, manifest: Manifest, split: Artifact) -> Artifact:
    """Write the pairs that were found."""
    if manifest.artifact is None:
        raise ValueError("the manifest must be written before its duplicates")
    return write_artifact(
        path,
        kind=KIND,
        schema_version=SCHEMA_VERSION,
        body={
            "pairs": len(duplicates.table),
            "across_lesions": duplicates.n_across_lesions,
            "across_parts": duplicates.n_across_parts,
            "moved": duplicates.moved,
        },
        payloads={"table": (".csv", tables.to_csv(duplicates.table.loc[:, list(COLUMNS)]))},
        inputs={"manifest": manifest.artifact, "split": split},
    )


def read(path: Path) -> Duplicates:
    """Read and verify the pairs that were found."""
    artifact = read_artifact(
        path,
        kind=KIND,
        schema_version=SCHEMA_VERSION,
        hint="Run `skinlesion download --check-duplicates`.",
    )
    table = tables.read_csv(artifact.payloads["table"], path.name)
    tables.require_columns(table, COLUMNS, path.name)
    return Duplicates(table, bool(artifact.body["moved"]), artifact)
