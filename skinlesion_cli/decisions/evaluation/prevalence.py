"""Figures that depend on how frequent each class is, recomputed for another population.

Each image is weighted by its class: the wanted share of the class divided by its share here. Sensitivity
and specificity of a class stay as they are; predictive values, absolute risks, shares of the triage levels
and net benefit change. The decisions are those that were made: nothing is calibrated anew.
Source: Elkan, 2001, "The foundations of cost-sensitive learning", theorem 2 (change of base rates).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from skinlesion_cli.decisions.evaluation.triage_figures import Interval
from skinlesion_cli.decisions.levels import LEVELS, REFER
from skinlesion_cli.decisions.statistics.lesions import group
from skinlesion_cli.decisions.statistics.metrics import ratio
from skinlesion_cli.decisions.statistics.resampling import Resamples, lesion_sums
from skinlesion_cli.errors import DataError, UsageError
from skinlesion_cli.taxonomy import ClassList

THRESHOLDS: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)


def parse_prevalence(text: str) -> dict[str, float]:
    """`MEL=0.02,BCC=0.01` as class -> share.

    Raises
    ------
    UsageError : an entry is not CLASS=SHARE, a class is named twice, or the shares exceed 1.
    """
    shares: dict[str, float] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = (part.strip() for part in entry.partition("="))
        if not name or name in shares:
            raise UsageError(
                f"--prevalence: {entry!r} does not name a class, or names it again", "Example: MEL=0.02"
            )
        try:
            shares[name] = float(value)
        except ValueError:
            shares[name] = float("nan")
        if not 0.0 <= shares[name] <= 1.0:
            raise UsageError(f"--prevalence: {entry!r} is not a share between 0 and 1", "Example: MEL=0.02")
    if not shares or sum(shares.values()) > 1.0 + 1e-9:
        raise UsageError(
            f"--prevalence: the shares of {text!r} must be given and sum to at most 1",
            "Example: MEL=0.02,BCC=0.01",
        )
    return shares


def class_weights(labels: np.ndarray, prevalence: Mapping[str, float], classes: ClassList) -> np.ndarray:
    """Weight of each class, float64 (n_classes,); classes not named in `prevalence` share the rest as they
    do here.

    Raises
    ------
    DataError : a class with a wanted share has no images here, or there is nothing that the rest could go to.
    UsageError : a class is not in the list.
    """
    n_classes = classes.n_classes
    position = {name: classes.require(name) for name in prevalence}
    here = np.bincount(labels, minlength=n_classes) / len(labels)
    lacking = [name for name, share in prevalence.items() if share > 0 and here[position[name]] == 0]
    if lacking:
        raise DataError(
            f"there are no images of {', '.join(lacking)}: figures at another prevalence of it are undefined",
            "Omit it from --prevalence.",
        )
    given = np.array([position[name] for name in prevalence], dtype=np.int64)
    others = np.setdiff1d(np.arange(n_classes), given)
    left, left_here = 1.0 - sum(prevalence.values()), here[others].sum()
    if left > 1e-9 and left_here == 0:
        raise DataError("the shares of --prevalence sum to less than 1, but no other class has images here")
    wanted = np.zeros(n_classes)
    wanted[given] = list(prevalence.values())
    if left_here > 0:
        wanted[others] = here[others] * max(left, 0.0) / left_here
    return np.divide(wanted, here, out=np.zeros(n_classes), where=here > 0)


def figures_at_prevalence(
    labels: np.ndarray,
    decided: np.ndarray,
    levels: np.ndarray | None,
    malignant: np.ndarray,
    lesion_ids: np.ndarray,
    prevalence: Mapping[str, float],
    classes: ClassList,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Predictive values, absolute risks, shares of the triage levels and net benefit at this prevalence.

    Parameters
    ----------
    labels, decided : int64 (n_images,). levels : triage levels (n_images,), or None. malignant : malignant
        probability (n_images,).

    Names: `malignant_share`; `ppv/MEL`, `npv/MEL` and so on of the decided class; `level/refer/share`,
    `level/refer/risk` (share of malignant images among those of the level) and so on; `net_benefit/0.10` of
    referring by the malignant probability, `net_benefit_refer/0.10` of following `refer`,
    `net_benefit_all/0.10` of referring everyone.
    Without a malignant class only those of the decided class.
    Intervals: percentiles of a bootstrap of whole lesions within their class, since the prevalence is given.

    Raises
    ------
    DataError : see `class_weights`.
    """
    labels, decided = np.asarray(labels), np.asarray(decided)
    weights = class_weights(labels, prevalence, classes)[labels]
    lesions, ill = group(lesion_ids, labels), classes.is_malignant[labels]
    every = np.ones(len(labels))
    pairs: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    if classes.has_malignant:
        pairs["malignant_share"] = (ill * every, every)
    for index, name in enumerate(classes.codes):
        said = decided == index
        pairs[f"ppv/{name}"] = (said & (labels == index), said)
        pairs[f"npv/{name}"] = (~said & (labels != index), ~said)
    for level in LEVELS if levels is not None else ():
        at = np.asarray(levels) == level
        pairs[f"level/{level}/share"] = (at, every)
        pairs[f"level/{level}/risk"] = (at & ill, at)
    for threshold in THRESHOLDS if classes.has_malignant else ():
        worth = np.where(ill, 1.0, -threshold / (1.0 - threshold))
        over = np.asarray(malignant, dtype=np.float64) > threshold
        pairs[f"net_benefit/{threshold:.2f}"] = (over * worth, every)
        if levels is not None:
            pairs[f"net_benefit_refer/{threshold:.2f}"] = ((np.asarray(levels) == REFER) * worth, every)
        pairs[f"net_benefit_all/{threshold:.2f}"] = (worth, every)
    columns = np.stack(
        [np.asarray(part, dtype=np.float64) for pair in pairs.values() for part in pair], axis=1
    )
    sums = lesion_sums(columns * weights[:, None], lesions).astype(np.float64)
    draws = Resamples(lesions, labels[lesions.first], n_resamples, seed)
    replicates = [drawn @ sums for drawn in draws.weights()]
    drawn = np.concatenate(replicates) if replicates else np.empty((0, sums.shape[1]))
    once = sums.sum(axis=0)
    return {
        "prevalence": dict(prevalence),
        "figures": {
            name: asdict(_interval(once[2 * k : 2 * k + 2], drawn[:, 2 * k : 2 * k + 2]))
            for k, name in enumerate(pairs)
        },
    }


def _interval(once: Sequence[float] | np.ndarray, drawn: np.ndarray) -> Interval:
    value = float(ratio(once[0], once[1]))
    replicates = ratio(drawn[:, 0], drawn[:, 1])
    defined = replicates[~np.isnan(replicates)]
    if np.isnan(value) or not defined.size:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(defined, [0.025, 0.975])
    return Interval(value, float(low), float(high))
