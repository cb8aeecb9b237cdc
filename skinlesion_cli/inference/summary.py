"""Totals of a run, in constant memory."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from skinlesion_cli.data.reading.inputs import ImageInput
from skinlesion_cli.decisions.levels import LEVELS
from skinlesion_cli.inference.prediction import ERROR, Prediction
from skinlesion_cli.result import counted

_SHOWN = 5


class Tally:
    """Counts predictions; `codes` are the classes that may be decided on, in their order."""

    def __init__(self, codes: Sequence[str]) -> None:
        self.codes = tuple(codes)
        self.decisions: Counter[str] = Counter()
        self.triage: Counter[str] = Counter()
        self.images = self.failed = self.flagged = self.forward_passes = self.with_metadata = 0
        self.in_training = 0
        self.first_failed: list[str] = []
        self.first_in_training: list[str] = []

    def add(self, prediction: Prediction) -> None:
        """Count one prediction."""
        if prediction.status == ERROR:
            self.failed += 1
            if len(self.first_failed) < _SHOWN:
                self.first_failed.append(f"{prediction.id} ({prediction.error})")
            return
        self.images += 1
        self.decisions[prediction.decision or ""] += 1
        self.triage[prediction.triage or ""] += 1
        self.flagged += bool(prediction.flagged)
        self.forward_passes += prediction.forward_passes or 0
        self.with_metadata += bool(prediction.patient_data)
        if prediction.in_training:
            self.in_training += 1
            if len(self.first_in_training) < _SHOWN:
                self.first_in_training.append(prediction.id)

    def name_failures(self) -> str:
        """The first few that failed, and how many there are."""
        return _named(self.first_failed, self.failed)

    def name_in_training(self) -> str:
        """The first few that the model has seen in training, and how many there are."""
        return _named(self.first_in_training, self.in_training)

    def figures(self) -> dict[str, Any]:
        """In JSON types; the mean number of forward passes is None where nothing was predicted."""
        return {
            "images": self.images,
            "failed": self.failed,
            "decisions": {name: self.decisions[name] for name in self.codes},
            "triage": {level: self.triage[level] for level in LEVELS},
            "flagged": self.flagged,
            "with_patient_metadata": self.with_metadata,
            "in_training": self.in_training,
            "mean_forward_passes": round(self.forward_passes / self.images, 3) if self.images else None,
        }


def in_training_warning(count: int, total: int, ids: str) -> str:
    """What is said of `count` of `total` images that the model has seen in training; `ids` names them."""
    return (
        f"{count} of {counted(total, 'image')} are in the training data of the model: {ids}. What it says "
        "of them is no evidence of how well it works on new images"
    )


def _named(first: Sequence[str], count: int) -> str:
    return ", ".join(first) + (f" ... ({count} in all)" if count > _SHOWN else "")


class Numbering:
    """Numbers inputs from 1, with a running hash of their ids: the same list has the same hash."""

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
