"""How far a training is, and what its epochs take."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from skinlesion_cli.models.training.history import Row

B = TypeVar("B")


@dataclass
class Progress:
    """Position of a run in its training: counters and scores, all JSON types."""

    epoch: int = 0
    step: int = 0
    best_epoch: int = -1
    best_score: float = -math.inf
    epochs_without_gain: int = 0
    loss_sum: float = 0.0
    # Number of parts in which each batch goes through the network; it grows when memory runs out.
    parts: int = 1
    history: list[Row] = field(default_factory=list)
    finished: bool = False


@dataclass
class EpochTime:
    """Seconds of one epoch: all of it, its training steps, and the wait for batches among them.

    `n_steps` were trained in them: after a resume within the epoch, fewer than the epoch has.
    """

    n_steps: int = 0
    total_s: float = 0.0
    training_s: float = 0.0
    waiting_s: float = 0.0

    def waits_for(self, batches: Iterable[B]) -> Iterator[B]:
        """The batches; adds the time that each took to come."""
        iterator = iter(batches)
        while True:
            started = time.monotonic()
            batch = next(iterator, None)
            self.waiting_s += time.monotonic() - started
            if batch is None:
                return
            yield batch
