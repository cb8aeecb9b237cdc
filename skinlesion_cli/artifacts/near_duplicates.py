"""Near-duplicate images of a dataset, and whether the split keeps them on one side."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Self

import pandas as pd

from skinlesion_cli.artifacts import tables
from skinlesion_cli.artifacts.base import Body, Content, StoredArtifact, parsed
from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.schema import Count


class DuplicatesBody(Body):
    """Counts of the table."""

    pairs: Count
    across_lesions: Count
    across_parts: Count
    moved: bool


@dataclass(frozen=True)
class Duplicates(StoredArtifact):
    """Pairs of near duplicates; `table` has the columns `COLUMNS`, all text, most similar first.

    `across_parts` refers to the split that was made in the same run; `moved` says that this split keeps such
    pairs on one side.
    """

    KIND: ClassVar[str] = "duplicates"
    # `same_lesion`, `across_parts`: yes or no. `correlation` is that of the details of the aligned images.
    COLUMNS: ClassVar[tuple[str, ...]] = (
        *("first", "second", "distance_bits", "correlation", "same_lesion", "across_parts"),
    )
    HINT: ClassVar[str] = "Run `skinlesion download --check-duplicates`."

    table: pd.DataFrame
    moved: bool
    artifact: Artifact | None = field(default=None, compare=False)

    @property
    def n_across_lesions(self) -> int:
        return int((self.table["same_lesion"] == "no").sum())

    @property
    def n_across_parts(self) -> int:
        return int((self.table["across_parts"] == "yes").sum())

    @classmethod
    def _from_artifact(cls, artifact: Artifact) -> Self:
        body = parsed(DuplicatesBody, artifact)
        table = tables.read_csv(artifact.payload("table"), artifact.path.name)
        tables.require_columns(table, cls.COLUMNS, artifact.path.name)
        return cls(table, body.moved, artifact)

    def _content(self) -> Content:
        body = DuplicatesBody(
            pairs=len(self.table),
            across_lesions=self.n_across_lesions,
            across_parts=self.n_across_parts,
            moved=self.moved,
        )
        table = tables.to_csv(self.table.loc[:, list(self.COLUMNS)])
        return Content(body.model_dump(mode="json"), payloads={"table": (".csv", table)})
