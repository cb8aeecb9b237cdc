"""The ensemble at work: pixels in, probabilities (and, on request, features) out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from skinlesion_cli.config.schema import Preprocessing
from skinlesion_cli.decisions.ensemble import combine
from skinlesion_cli.inference import tta
from skinlesion_cli.inference.runtimes.base import Runtime, softmax

ToInput = Callable[[np.ndarray, Preprocessing], np.ndarray]


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
    (n, n_features, h, w); empty unless asked for.
    """

    probabilities: np.ndarray
    features: tuple[np.ndarray, ...]


class Engine:
    """Runs all members over all views."""

    def __init__(self, members: Sequence[EngineMember], views: Sequence[str], to_input: ToInput) -> None:
        self.members, self.views, self.to_input = tuple(members), tuple(views), to_input

    def run(self, images: Sequence[np.ndarray], *, keep_features: bool = False) -> BatchOutput:
        """Predict a batch of images, each uint8 (height, width, 3) of any size."""
        per_member, features = [], []
        inputs: dict[Preprocessing, np.ndarray] = {}
        for member in self.members:
            if member.preprocessing not in inputs:
                resized = [self.to_input(image, member.preprocessing) for image in images]
                inputs[member.preprocessing] = np.stack(resized)
            pixels = inputs[member.preprocessing]
            per_view = []
            for view in self.views:
                seen = tta.apply(view, pixels)
                if keep_features and view == "identity":
                    logits, maps = member.runtime.logits_and_features(seen)
                    features.append(maps)
                else:
                    logits = member.runtime.logits(seen)
                per_view.append(softmax(logits))
            per_member.append(np.mean(per_view, axis=0, dtype=np.float64).astype(np.float32))
        weights = np.array([member.weight for member in self.members])
        return BatchOutput(combine(np.stack(per_member), weights), tuple(features))
