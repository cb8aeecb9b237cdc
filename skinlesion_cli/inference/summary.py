"""What a run adds up to, in constant memory."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from skinlesion_cli.data.reading.inputs import ImageInput
from skinlesion_cli.taxonomy import CLASS_NAMES

_SHOWN = 5


class Tally:
    """Counts rows as they pass."""

    def __init__(self) -> None:
        self.decisions: Counter[str] = Counter()
        self.triage: Counter[str] = Counter()
        self.images = self.failed = self.flagged = self.passes = 0
        self.first_failed: list[str] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one row."""
        if row["status"] == "error":
            self.failed += 1
            if len(self.first_failed) < _SHOWN:
                self.first_failed.append(f"{row['id']} ({row['error']})")
            return
        self.images += 1
        self.decisions[row["decision"]] += 1
        self.triage[row["triage"]] += 1
        self.flagged += bool(row["flagged"])
        self.passes += row["passes"] or 0

    def named_failures(self) -> str:
        """The first few that failed, and how many there are."""
        more = f" ... ({self.failed} in all)" if self.failed > _SHOWN else ""
        return ", ".join(self.first_failed) + more

    def figures(self) -> dict[str, Any]:
        """In JSON types; the mean number of forward passes is None where nothing was predicted."""
        return {
            "images": self.images,
            "failed": self.failed,
            "decisions": {name: self.decisions[name] for name in CLASS_NAMES},
            "triage": {level: self.triage[level] for level in ("refer", "review", "routine")},
            "flagged": self.flagged,
            "mean_passes": round(self.passes / self.images, 3) if self.images else None,
        }


class Numbering:
    """Numbers inputs from 1 as they pass, with a running hash of their ids: the same list, the same hash."""

    def __init__(self) -> None:
        self.count = 0
        self._digest = hashlib.sha256()

    def number(self, inputs: Iterable[ImageInput]) -> Iterator[tuple[int, ImageInput]]:
        for source in inputs:
            self.count += 1
            self._digest.update(source.id.encode() + b"\0")
            yield self.count, source

    def record(self) -> dict[str, Any]:
        """How many there were, and their hash."""
        return {"count": self.count, "sha256": self._digest.hexdigest()}
