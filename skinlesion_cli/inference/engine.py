"""The ensemble at work: pixels in, probabilities (and, on request, features) out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from skinlesion_cli.config.schema import Preprocessing
from skinlesion_cli.decisions.ensemble import MergeRule
from skinlesion_cli.inference import tta
from skinlesion_cli.inference.runtimes.base import Runtime, softmax
from skinlesion_cli.taxonomy import N_CLASSES

ToInput = Callable[[np.ndarray, Preprocessing], np.ndarray]


class Looks(Protocol):
    """The order of looks: a voice (some members, that speak together) at a view."""

    @property
    def order(self) -> Sequence[tuple[int, int]]:
        """Voice and view of every look."""

    def estimate(self, sums: np.ndarray, n_looks: int) -> np.ndarray:
        """float32 (n, 7), the ensemble's probabilities after `n_looks` looks, from sums (n, n_voices, 7)."""


class Stopping(Protocol):
    """When an image has been looked at often enough."""

    @property
    def weights(self) -> Sequence[float]:
        """Of the voices; a single one: all members are one voice."""

    @property
    def looks(self) -> Looks:
        """In their order."""

    def settled(self, probabilities: np.ndarray, n_looks: int) -> np.ndarray:
        """bool (n,): which estimates after `n_looks` looks, shape (n, 7), need no further look."""


@dataclass(frozen=True)
class EngineMember:
    """One network, ready to run. `classifier` is its last layer's weight, float32 (7, n_features)."""

    name: str
    weight: float
    preprocessing: Preprocessing
    runtime: Runtime
    classifier: np.ndarray


@dataclass(frozen=True)
class BatchOutput:
    """`probabilities` float32 (n, 7): the ensemble's mean over views, before calibration.

    `features` holds for each member the last feature map of the unturned view, float32
    (n, n_features, h, w); empty unless asked for. `passes` int64 (n,): how many forward passes, each one member
    at one view, were averaged.
    """

    probabilities: np.ndarray
    features: tuple[np.ndarray, ...]
    passes: np.ndarray


class Engine:
    """Runs all members over all views, or with `stopping` as many looks as an image needs.

    `voices` groups the members (by index) that speak together; without it each speaks for itself. `tta_mode` is
    the name of what it does. It may be used from several threads at once.
    """

    def __init__(
        self,
        members: Sequence[EngineMember],
        rule: MergeRule,
        views: Sequence[str],
        to_input: ToInput,
        *,
        stopping: Stopping | None = None,
        voices: Sequence[Sequence[int]] | None = None,
        tta_mode: str = "",
    ) -> None:
        self.members, self.views, self.to_input = tuple(members), tuple(views), to_input
        self.stopping, self.tta_mode = stopping, tta_mode
        self.rule = rule
        each = [[index] for index in range(len(self.members))]
        whole = stopping is not None and len(stopping.weights) == 1
        self.voices = [list(range(len(self.members)))] if whole else [list(v) for v in voices or each]
        if stopping is not None and len(stopping.weights) != len(self.voices):
            raise ValueError(f"{len(self.voices)} voices, a stopping rule for {len(stopping.weights)}")

    @property
    def runtime(self) -> str:
        """Name of the runtime of the members."""
        return self.members[0].runtime.name

    def run(self, images: Sequence[np.ndarray], *, keep_features: bool = False) -> BatchOutput:
        """Predict a batch of images, each uint8 (height, width, 3) of any size."""
        inputs: dict[Preprocessing, np.ndarray] = {}
        for member in self.members:
            if member.preprocessing not in inputs:
                inputs[member.preprocessing] = np.stack(
                    [self.to_input(image, member.preprocessing) for image in images]
                )
        batch = _Batch(self.members, inputs)
        features = [batch.features(index) for index in range(len(self.members))] if keep_features else []
        probabilities, passes = (
            self._all(batch) if self.stopping is None else self._some(batch, self.stopping)
        )
        return BatchOutput(probabilities, tuple(features), passes)

    def _all(self, batch: _Batch) -> tuple[np.ndarray, np.ndarray]:
        """Every member at every view; one that was drawn twice counts twice and runs once."""
        everyone, rows = range(len(self.members)), np.arange(batch.n)
        known = {
            view: np.stack([batch.see(index, view, rows) for index in everyone], axis=1)
            for view in dict.fromkeys(self.views)
        }
        means = np.stack([known[view] for view in self.views]).mean(axis=0, dtype=np.float64)
        passes = np.full(batch.n, len(self.views) * len(self.members), dtype=np.int64)
        return self.rule.merge(np.moveaxis(means.astype(np.float32), 1, 0)), passes

    def _some(self, batch: _Batch, stopping: Stopping) -> tuple[np.ndarray, np.ndarray]:
        """One look after the other, at the images that are not settled."""
        looks, weights = stopping.looks, self.rule.weights
        sums = np.zeros((batch.n, len(self.voices), N_CLASSES))
        found = np.empty((batch.n, N_CLASSES), dtype=np.float32)
        passes = np.zeros(batch.n, dtype=np.int64)
        waiting = np.arange(batch.n)
        for n_looks, (voice, view) in enumerate(looks.order, start=1):
            speaking = self.voices[voice]
            share = weights[speaking] / weights[speaking].sum()
            for index, part in zip(speaking, share, strict=True):
                sums[waiting, voice] += part * batch.see(index, self.views[view], waiting)
            passes[waiting] += len(speaking)
            found[waiting] = looks.estimate(sums[waiting], n_looks)
            waiting = waiting[~stopping.settled(found[waiting], n_looks)]
            if not len(waiting):
                break
        return found, passes


class _Batch:
    """Images of one batch at every member's input size, and what was already seen of them."""

    def __init__(self, members: Sequence[EngineMember], inputs: dict[Preprocessing, np.ndarray]) -> None:
        self.members, self.inputs = members, inputs
        self.n = len(next(iter(inputs.values())))
        self._unturned: dict[int, np.ndarray] = {}

    def features(self, index: int) -> np.ndarray:
        """A member's last feature maps of all images, unturned; that view need not be seen again."""
        member = self.members[index]
        pixels = tta.apply("identity", self.inputs[member.preprocessing])
        logits, maps = member.runtime.logits_and_features(pixels)
        self._unturned[index] = softmax(logits)
        return maps

    def see(self, index: int, view: str, rows: np.ndarray) -> np.ndarray:
        """A member's softmax of a view of some images, float32 (n_rows, 7)."""
        if view == "identity" and index in self._unturned:
            return self._unturned[index][rows]
        member = self.members[index]
        return softmax(member.runtime.logits(tta.apply(view, self.inputs[member.preprocessing][rows])))
