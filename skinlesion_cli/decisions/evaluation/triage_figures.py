"""What triage is worth: who is in each level, how many of them are ill, and the net benefit of following
it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from skinlesion_cli.decisions.levels import LEVELS, REFER, REVIEW
from skinlesion_cli.decisions.statistics.bounds import binomial_interval
from skinlesion_cli.decisions.statistics.lesions import group, votes
from skinlesion_cli.decisions.statistics.metrics import ratio
from skinlesion_cli.decisions.statistics.resampling import Resamples, lesion_sums
from skinlesion_cli.taxonomy import ClassList

# Chances of malignancy at which one would act: from 1 in 50 to 1 in 2.
THRESHOLDS: tuple[float, ...] = tuple(float(t) for t in np.round(np.arange(0.02, 0.501, 0.02), 2))
FEWEST_LESIONS = 10


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % interval; NaN: undefined."""

    value: float
    low: float
    high: float


def triage_figures(
    labels: np.ndarray,
    malignant: np.ndarray,
    levels: np.ndarray,
    lesion_ids: np.ndarray,
    classes: ClassList,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Every level, and the net benefit.

    Parameters
    ----------
    malignant : malignant probability, (n_images,). levels : (n_images,).

    Intervals are percentiles of a bootstrap of whole lesions, drawn from all of them: predictive value and
    risk depend on how many are ill, and that is chance too. Where fewer than ten lesions count, the interval
    is exact, one vote per lesion.
    """
    labels, levels = np.asarray(labels), np.asarray(levels)
    lesions, ill = group(lesion_ids, labels), classes.is_malignant[labels]
    at = {level: levels == level for level in LEVELS}
    seen = levels != LEVELS[-1]
    counts = [ill, ~ill]
    for level in LEVELS:
        counts += [at[level] & ill, at[level] & ~ill]
    over = np.asarray(malignant, dtype=np.float64)[:, None] > np.array(THRESHOLDS)
    acting = {
        "refer": np.repeat(at[REFER][:, None], len(THRESHOLDS), axis=1),
        "refer_or_review": np.repeat(seen[:, None], len(THRESHOLDS), axis=1),
        "triage": at[REFER][:, None] | (at[REVIEW][:, None] & over),
        "probability": over,
        "all": np.ones_like(over),
    }
    odds = np.array(THRESHOLDS) / (1.0 - np.array(THRESHOLDS))
    benefit = [mask * np.where(ill[:, None], 1.0, -odds) for mask in acting.values()]
    sums = lesion_sums(np.concatenate([np.stack(counts, axis=1), *benefit], axis=1), lesions).astype(
        np.float64
    )
    once = sums.sum(axis=0, keepdims=True)
    draws = [weights @ sums for weights in Resamples(lesions, None, n_resamples, seed).weights()]
    drawn = np.concatenate(draws) if draws else np.empty((0, sums.shape[1]))

    def interval(part: list[int], whole: list[int], mask: np.ndarray, inside: np.ndarray) -> dict[str, float]:
        """Of the columns' ratio; `mask` of the images that count and, among them, `inside`."""
        value = float(ratio(once[0, part].sum(), once[0, whole].sum()))
        if len(np.unique(lesions.codes[mask])) < FEWEST_LESIONS:
            said = votes(inside[mask].astype(float), lesions.codes[mask]) > 0.5
            return asdict(Interval(value, *binomial_interval(int(said.sum()), len(said))))
        return asdict(_percentiles(value, ratio(drawn[:, part].sum(axis=1), drawn[:, whole].sum(axis=1))))

    every = np.ones(len(labels), dtype=bool)
    by_level = {}
    for number, level in enumerate(LEVELS):
        sick, well = 2 + 2 * number, 3 + 2 * number
        by_level[level] = {
            "images": int(at[level].sum()),
            "malignant": int((at[level] & ill).sum()),
            "share": interval([sick, well], [0, 1], every, at[level]),
            "share_of_malignant": interval([sick], [0], ill, at[level]),
            "share_of_benign": interval([well], [1], ~ill, at[level]),
            "risk": interval([sick], [sick, well], at[level], ill),
        }
    start, n = 2 + 2 * len(LEVELS), len(THRESHOLDS)
    curves = {
        name: once[0, start + k * n : start + (k + 1) * n] / len(labels) for k, name in enumerate(acting)
    }
    return {
        "levels": by_level,
        "net_benefit": {"thresholds": list(THRESHOLDS), "none": [0.0] * n}
        | {name: curve.tolist() for name, curve in curves.items()},
        "worst_loss_to_probability": _worst(curves, drawn[:, start:], list(acting), drawn),
    }


def _worst(
    curves: dict[str, np.ndarray], drawn: np.ndarray, names: list[str], counts: np.ndarray
) -> dict[str, float]:
    """Where following triage loses most net benefit to the plain probability, and how much, with its
    interval.
    """
    n = len(THRESHOLDS)
    loss = curves["probability"] - curves["triage"]
    worst = int(loss.argmax())
    images = counts[:, 0] + counts[:, 1] if len(counts) else np.empty(0)
    of = {name: drawn[:, names.index(name) * n + worst] for name in ("probability", "triage")}
    interval = _percentiles(float(loss[worst]), ratio(of["probability"] - of["triage"], images))
    return {"threshold": THRESHOLDS[worst], **asdict(interval)}


def _percentiles(value: float, replicates: np.ndarray) -> Interval:
    defined = replicates[~np.isnan(replicates)]
    if not defined.size or np.isnan(value):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(defined, [0.025, 0.975])
    return Interval(value, float(low), float(high))
