"""Were targets and guarantees met? Counted by lesion, with exact intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from skinlesion_cli.decisions.settings import Target
from skinlesion_cli.decisions.statistics.bounds import binomial_interval
from skinlesion_cli.decisions.statistics.lesions import group, votes
from skinlesion_cli.decisions.statistics.metrics import ratio
from skinlesion_cli.taxonomy import MALIGNANT, ClassList


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


@dataclass(frozen=True)
class LevelKept:
    """A guarantee of a level of triage: `malignant` is the share of lesions in it that are malignant, one
    vote per lesion, `photographs` the same share of photographs, each lesion's counting once; `met` judges
    the latter."""

    level: str
    figure: str
    guaranteed: float
    malignant: Share
    photographs: float
    met: bool | None


def lesion_share(right: np.ndarray, codes: np.ndarray) -> Share:
    """Lesions of which more than half of the images are right."""
    return Share.of(votes(np.asarray(right, dtype=float), codes) > 0.5)


def targets_met(
    labels: np.ndarray,
    decided: np.ndarray,
    lesion_ids: np.ndarray,
    targets: Sequence[Target],
    classes: ClassList,
    alarms: Mapping[str, np.ndarray] | None = None,
) -> tuple[TargetMet, ...]:
    """Judge each target, one vote per lesion.

    Parameters
    ----------
    alarms : bool (n_images,) by name. Where a target's alarm is among them it is judged, otherwise the
    decided class.
    """
    codes = group(lesion_ids, labels).codes
    results = []
    for target in targets:
        name = target.class_name
        if name == MALIGNANT:
            malignant = classes.is_malignant
            mine, called = malignant[labels], np.append(malignant, False)[decided]
        else:
            index = classes.require(name)
            mine, called = labels == index, decided == index
        called = (alarms or {}).get(name, called)
        caught = lesion_share(called[mine], codes[mine])
        cleared = lesion_share(~called[~mine], codes[~mine])
        met: bool | None = None
        if caught.n and (cleared.n or target.specificity is None):
            held = target.specificity is None or cleared.value >= target.specificity
            met = caught.value >= target.sensitivity and held
        results.append(TargetMet(name, target.sensitivity, target.specificity, caught, cleared, met))
    return tuple(results)


def levels_kept(
    labels: np.ndarray,
    levels: np.ndarray,
    lesion_ids: np.ndarray,
    guarantees: Sequence[Mapping[str, Any]],
    classes: ClassList,
) -> tuple[LevelKept, ...]:
    """Judge the guarantees of `refer` and `routine` (see `triage_fit.LevelGuarantee`)."""
    lesions, ill = group(lesion_ids, labels), classes.is_malignant[labels]
    weight = 1.0 / lesions.sizes[lesions.codes]
    results = []
    for guarantee in guarantees:
        if guarantee["guaranteed"] is None:
            continue
        at, bound = levels == guarantee["level"], guarantee["guaranteed"]
        share = float(ratio((weight * (at & ill)).sum(), (weight * at).sum()))
        met = None if np.isnan(share) else share >= bound if guarantee["figure"] == "ppv" else share <= bound
        results.append(
            LevelKept(
                guarantee["level"],
                guarantee["figure"],
                bound,
                lesion_share(ill[at], lesions.codes[at]),
                share,
                met,
            )
        )
    return tuple(results)
