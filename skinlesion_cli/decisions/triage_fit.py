"""Fitting the triage: conformal minima by class, and the two limits of malignant probability."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from skinlesion_cli.decisions.levels import REFER, ROUTINE
from skinlesion_cli.decisions.settings import TriageSettings
from skinlesion_cli.decisions.statistics import lesion_means
from skinlesion_cli.decisions.statistics.lesions import group, votes
from skinlesion_cli.decisions.statistics.metrics import checked
from skinlesion_cli.decisions.triage import RiskLevels
from skinlesion_cli.errors import UsageError
from skinlesion_cli.taxonomy import ClassList


def conformal_minima(
    labels: np.ndarray, probabilities: np.ndarray, lesion_ids: np.ndarray, coverage: float
) -> tuple[float, ...]:
    """The least probability with which each class stays in the set: one float per class.

    The set then holds the true class of a new lesion with at least this probability, for every class by
    itself (Mondrian; Vovk et al., 2005): the minimum is the floor((1-coverage)(n+1))-th smallest probability
    that the n lesions of the class gave it, one vote a lesion.
    A class with too few lesions gets 0 and is never left out.
    """
    if not 0.0 < coverage < 1.0:
        raise UsageError(f"coverage must be between 0 and 1, got {coverage}")
    values, labels = checked(probabilities), np.asarray(labels)
    codes = group(lesion_ids, labels).codes
    minima = []
    for index in range(values.shape[1]):
        mine = labels == index
        scores = np.sort(votes(values[mine, index], codes[mine]))
        rank = math.floor((1.0 - coverage) * (len(scores) + 1) + 1e-9)
        minima.append(float(scores[rank - 1]) if rank >= 1 else 0.0)
    return tuple(minima)


# Candidate limits, fixed beforehand: certainty falls along each.
_REFER_CANDIDATES = np.round(np.linspace(0.99, 0.01, 99), 2)
_ROUTINE_CANDIDATES = np.geomspace(0.001, 0.5, 80)
# How far from the target towards certainty the first candidate may be expected to lie: of the referred half
# way, of `routine`, where the target is near certainty already, three quarters.
_HEADROOM = {True: 0.5, False: 0.75}
NOTHING_ROUTINE = -1.0  # no malignant probability is as low as this


@dataclass(frozen=True)
class LevelGuarantee:
    """What holds for the photographs that a level of triage gets, each lesion counting once, in the
    population.

    `figure` : `ppv` (share of malignant ones among those referred, at least) or `risk` (share of malignant
    ones among those in `routine`, at most). `guaranteed` : the bound; None where nothing is in the level.
    `granted` : the target is guaranteed; `target` None: the limit is one of capacity. `measured` : the share
    in the fitted images.
    """

    level: str
    figure: str
    limit: float
    granted: bool
    target: float | None
    guaranteed: float | None
    measured: float | None
    confidence: float
    lesions: int


@dataclass(frozen=True)
class _Photographs:
    """Malignant probability of each photograph, whether it is malignant, and of which lesion it is."""

    risk: np.ndarray
    malignant: np.ndarray
    codes: np.ndarray
    sizes: np.ndarray

    def shares(self, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """By lesion: the share of its photographs in `mask`, and the same where it is malignant."""
        n = len(self.sizes)
        inside = np.bincount(self.codes[mask], minlength=n) / self.sizes
        hits = np.bincount(self.codes[mask & self.malignant], minlength=n) / self.sizes
        return inside, hits


def fit_levels(
    labels: np.ndarray,
    malignant: np.ndarray,
    lesion_codes: np.ndarray,
    raised: np.ndarray,
    settings: TriageSettings,
    confidence: float,
    classes: ClassList,
) -> tuple[RiskLevels, tuple[LevelGuarantee, LevelGuarantee]]:
    """The lowest limit of `refer` and the highest of `routine` that keep their guarantee on new photographs.

    Candidates are tested along a fixed order, from the most certain on, until one fails, so that testing many
    costs no confidence (fixed sequence testing; Angelopoulos et al., 2021, arXiv:2110.01052). The walk begins
    at the first candidate with lesions enough for it to pass part of the way between target and certainty
    (`_HEADROOM`); this looks at probabilities, not at labels.

    Parameters
    ----------
    malignant : malignant probability of each image. raised : bool, images that are not `routine` whatever it
    is.
    confidence : of each of the two guarantees.

    Where the predictive value cannot be guaranteed, `refer` begins at a malignant probability of that value;
    where the risk cannot, nothing is `routine`.
    """
    codes = np.asarray(lesion_codes)
    data = _Photographs(
        np.asarray(malignant, dtype=np.float64),
        classes.is_malignant[labels],
        codes,
        np.maximum(np.bincount(codes), 1),
    )

    def referred(limit: float) -> np.ndarray:
        return data.risk > limit

    def routine(limit: float) -> np.ndarray:
        inside: np.ndarray = (data.risk <= limit) & ~np.asarray(raised, dtype=bool)
        return inside

    wanted: float | None = settings.refer_ppv
    if settings.refer_share is not None:
        refer_above, granted, wanted = _capacity(data, settings.refer_share), True, None
    else:
        passed = _walk(data, _REFER_CANDIDATES, referred, settings.refer_ppv, confidence, malignant=True)
        refer_above, granted = (settings.refer_ppv, False) if passed is None else (passed, True)
    passed = _walk(data, _ROUTINE_CANDIDATES, routine, settings.routine_risk, confidence, malignant=False)
    routine_at_most = NOTHING_ROUTINE if passed is None else passed
    return RiskLevels(refer_above, routine_at_most), (
        _guarantee(data, REFER, refer_above, referred(refer_above), granted, wanted, confidence),
        _guarantee(
            data,
            ROUTINE,
            routine_at_most,
            routine(routine_at_most),
            passed is not None,
            settings.routine_risk,
            confidence,
        ),
    )


def _guarantee(
    data: _Photographs,
    level: str,
    limit: float,
    members: np.ndarray,
    granted: bool,
    target: float | None,
    confidence: float,
) -> LevelGuarantee:
    inside, hits = data.shares(members)
    guaranteed, measured = None, None
    if inside.any():
        bound = lesion_means.share_lower_bound if level == REFER else lesion_means.share_upper_bound
        guaranteed = target if granted and target is not None else bound(inside, hits, confidence)
        measured = float(hits.sum() / inside.sum())
    figure = "ppv" if level == REFER else "risk"
    lesions = int((inside > 0).sum())
    return LevelGuarantee(level, figure, limit, granted, target, guaranteed, measured, confidence, lesions)


def _capacity(data: _Photographs, share: float) -> float:
    """The limit above which no more than this share of the photographs lies."""
    ordered = np.r_[1.0, np.sort(data.risk)[::-1]]
    n = math.floor(share * len(data.risk) + 1e-9)
    # Of images with the same probability all are above the limit, or none.
    return float((ordered[n] + ordered[n + 1]) / 2)


def _walk(
    data: _Photographs,
    candidates: np.ndarray,
    members: Callable[[float], np.ndarray],
    target: float,
    confidence: float,
    *,
    malignant: bool,
) -> float | None:
    """The last candidate before the first that fails; None where the first fails.

    The share that must lie above the target is that of the malignant, or, of `routine`, that of the benign.
    """
    least = target if malignant else 1.0 - target
    easy = least + (1.0 - least) * _HEADROOM[malignant]
    passed, begun = None, False
    for candidate in candidates.tolist():
        inside, hits = data.shares(members(candidate))
        begun = begun or lesion_means.share_is_above(inside, inside * easy, least, confidence)
        if not begun:
            continue
        if not lesion_means.share_is_above(inside, hits if malignant else inside - hits, least, confidence):
            break
        passed = candidate
    return passed
