"""Predictions with the decision on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.decisions.evaluation.figures import Labelled
from skinlesion_cli.decisions.settings import Target


@dataclass(frozen=True)
class Judged:
    """Predictions with their final decision; `outcome` and `targets` only where a calibration decided."""

    predictions: Predictions
    probabilities: np.ndarray
    decided: np.ndarray
    how: str
    targets: tuple[Target, ...]
    guaranteed: tuple[Target, ...]
    levels: np.ndarray | None
    inputs: Mapping[str, Artifact | str]
    notes: tuple[str, ...]
    alarms: Mapping[str, np.ndarray] = field(default_factory=dict)
    level_guarantees: tuple[Mapping[str, Any], ...] = ()

    @property
    def ids(self) -> list[str]:
        ids: list[str] = self.predictions.table["id"].tolist()
        return ids

    def labelled(self) -> Labelled:
        p = self.predictions
        return Labelled(p.labels, self.probabilities, self.decided, p.lesion_ids, p.classes)

    def at(self, rows: np.ndarray) -> Judged:
        return replace(
            self,
            predictions=self.predictions.at(rows),
            probabilities=self.probabilities[rows],
            decided=self.decided[rows],
            levels=None if self.levels is None else self.levels[rows],
            alarms={name: fires[rows] for name, fires in self.alarms.items()},
        )
