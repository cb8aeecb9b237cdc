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


class Stopping(Protocol):
    """When an image has been seen often enough."""

    def settled(self, probabilities: np.ndarray, n_views: int) -> np.ndarray:
        """bool (n,): which means over `n_views` views, shape (n, 7), need no further view."""


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
    (n, n_features, h, w); empty unless asked for. `views` int64 (n,): how many views were averaged.
    """

    probabilities: np.ndarray
    features: tuple[np.ndarray, ...]
    views: np.ndarray


class Engine:
    """Runs all members over all views, or with `stopping` over as many as an image needs.

    `tta_mode` is the name of what it does. It may be used from several threads at once.
    """

    def __init__(
        self,
        members: Sequence[EngineMember],
        rule: MergeRule,
        views: Sequence[str],
        to_input: ToInput,
        *,
        stopping: Stopping | None = None,
        tta_mode: str = "",
    ) -> None:
        self.members, self.views, self.to_input = tuple(members), tuple(views), to_input
        self.stopping, self.tta_mode = stopping, tta_mode
        self.rule = rule

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
        features: list[np.ndarray] = []
        if keep_features and "identity" not in self.views:
            self._see("identity", inputs, np.arange(len(images)), features)
        total = np.zeros((len(images), len(self.members), N_CLASSES))
        views = np.zeros(len(images), dtype=np.int64)
        waiting = np.arange(len(images))
        known: dict[str, np.ndarray] = {}
        for view in self.views:
            if view in known:  # drawn twice; only modes that show every image every view do that
                seen = known[view]
            else:
                wanted = features if keep_features and view == "identity" else None
                seen = self._see(view, inputs, waiting, wanted)
            if self.stopping is None:
                known[view] = seen
            total[waiting] += seen
            views[waiting] += 1
            if self.stopping is not None:
                means = self._combined(total[waiting], int(views[waiting[0]]))
                waiting = waiting[~self.stopping.settled(means, int(views[waiting[0]]))]
                if not len(waiting):
                    break
        return BatchOutput(self._combined(total, views[:, None, None]), tuple(features), views)

    def _see(
        self,
        view: str,
        inputs: dict[Preprocessing, np.ndarray],
        rows: np.ndarray,
        features: list[np.ndarray] | None,
    ) -> np.ndarray:
        """Softmax of one view, float32 (n, n_members, 7); appends each member's features where wanted."""
        found = []
        for member in self.members:
            pixels = tta.apply(view, inputs[member.preprocessing][rows])
            if features is None:
                found.append(softmax(member.runtime.logits(pixels)))
            else:
                logits, maps = member.runtime.logits_and_features(pixels)
                features.append(maps)
                found.append(softmax(logits))
        return np.stack(found, axis=1)

    def _combined(self, total: np.ndarray, views: np.ndarray | int) -> np.ndarray:
        means = (total / views).astype(np.float32)
        return self.rule.merge(np.moveaxis(means, 1, 0))
