"""The manifest: which images there are, what they show, and whose lesion each one is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from skinlesion_cli.artifacts import tables
from skinlesion_cli.artifacts.envelope import (
    Artifact,
    malformed_as_artifact_error,
    read_artifact,
    write_artifact,
)
from skinlesion_cli.errors import DataError, name_items
from skinlesion_cli.taxonomy import CLASS_INDEX, CLASS_NAMES

KIND = "manifest"
SCHEMA_VERSION = 1
# `file` is relative to the image folder of the dataset. `part` is where the source puts the image
# (train, val, test; empty where it says nothing). An unknown age, sex or site is the empty string.
COLUMNS = ("id", "file", "sha256", "label", "lesion_id", "age_years", "sex", "site", "part", "source")
HINT = "Run `skinlesion download --from DIR` first."


@dataclass(frozen=True)
class Manifest:
    """Images with what is known of them; `table` has the columns `COLUMNS`, all text, sorted by id."""

    table: pd.DataFrame
    licence: str
    attribution: str
    artifact: Artifact | None = None

    def __post_init__(self) -> None:
        check(self.table)

    @property
    def class_counts(self) -> dict[str, int]:
        counts = Counter(self.table["label"])
        return {name: counts.get(name, 0) for name in CLASS_NAMES}

    @property
    def n_lesions(self) -> int:
        return int(self.table["lesion_id"].nunique())

    def rows(self, ids: list[str]) -> pd.DataFrame:
        """The rows of these ids, in this order."""
        return self.table.set_index("id", drop=False).loc[ids].reset_index(drop=True)


def check(table: pd.DataFrame) -> None:
    """Refuse a table with duplicate ids, unknown classes or images without a lesion.

    Raises
    ------
    DataError : naming the offenders.
    """
    tables.require_columns(table, COLUMNS, "the manifest")
    duplicates = sorted(identity for identity, count in Counter(table["id"]).items() if count > 1)
    if duplicates:
        raise DataError(f"these image ids occur more than once: {name_items(duplicates)}")
    unknown = table[~table["label"].isin(CLASS_INDEX)]
    if len(unknown):
        named = [f"{row.id} ({row.label or 'no class'})" for row in unknown.itertuples()]
        raise DataError(
            f"these images have a class that is not known: {name_items(named)}",
            "Known classes: " + ", ".join(CLASS_NAMES),
        )
    without_lesion = table[table["lesion_id"] == ""]["id"].tolist()
    if without_lesion:
        raise DataError(
            f"these images have no lesion id: {name_items(without_lesion)}",
            "Where an image is the only one of its lesion, its own id will do.",
        )


def write(path: Path, manifest: Manifest, *, config_sha256: str | None = None) -> Artifact:
    """Write the manifest, rows sorted by id."""
    table = manifest.table.loc[:, list(COLUMNS)].sort_values("id", kind="stable")
    return write_artifact(
        path,
        kind=KIND,
        schema_version=SCHEMA_VERSION,
        body={
            "images": len(table),
            "lesions": manifest.n_lesions,
            "class_counts": manifest.class_counts,
            "licence": manifest.licence,
            "attribution": manifest.attribution,
        },
        payloads={"table": (".csv", tables.to_csv(table))},
        config_sha256=config_sha256,
    )


@malformed_as_artifact_error
def read(path: Path) -> Manifest:
    """Read and verify a manifest."""
    artifact = read_artifact(path, kind=KIND, schema_version=SCHEMA_VERSION, hint=HINT)
    return Manifest(
        table=tables.read_csv(artifact.payloads["table"], path.name),
        licence=artifact.body["licence"],
        attribution=artifact.body["attribution"],
        artifact=artifact,
    )
