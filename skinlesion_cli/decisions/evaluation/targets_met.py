"""Were the targets met? Counted by lesion, with exact intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skinlesion_cli.decisions.settings import Target
from skinlesion_cli.decisions.statistics.bounds import binomial_interval
from skinlesion_cli.decisions.statistics.lesions import group, votes
from skinlesion_cli.decisions.statistics.metrics import ratio


@dataclass(frozen=True)
class Share:
    """`hits` of `n` lesions, their share and its exact 95 % interval; NaN where there are none."""

    hits: int
    n: int
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, right: np.ndarray) -> Share:
        hits, n = int(np.sum(right)), len(right)
        return cls(hits, n, float(ratio(hits, n)), *binomial_interval(hits, n))


@dataclass(frozen=True)
class TargetMet:
    """`met` is True, False, or None where no lesion says so: both shares are at their target or above."""

    class_name: str
    target_sensitivity: float
    target_specificity: float | None
    sensitivity: Share
    specificity: Share
    met: bool | None


def lesion_share(right: np.ndarray, codes: np.ndarray) -> Share:
    """Lesions of which more than half of the images are right."""
    return Share.of(votes(np.asarray(right, dtype=float), codes) > 0.5)


def targets_met(
    labels: np.ndarray, decided: np.ndarray, lesion_ids: np.ndarray, targets: Sequence[Target]
) -> tuple[TargetMet, ...]:
    """Judge the final decision against each target, one vote a lesion."""
    codes = group(lesion_ids, labels).codes
    found = []
    for target in targets:
        mine, said = labels == target.class_index, decided == target.class_index
        caught = lesion_share(said[mine], codes[mine])
        cleared = lesion_share(~said[~mine], codes[~mine])
        met: bool | None = None
        if caught.n and (cleared.n or target.specificity is None):
            held = target.specificity is None or cleared.value >= target.specificity
            met = caught.value >= target.sensitivity and held
        found.append(
            TargetMet(target.class_name, target.sensitivity, target.specificity, caught, cleared, met)
        )
    return tuple(found)
