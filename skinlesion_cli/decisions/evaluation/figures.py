"""All figures of labelled predictions, each with an interval that fits it.

Shares within a class (sensitivity, specificity, balanced accuracy) have percentiles of a bootstrap of whole
lesions within their class; all else, which depends on how common the classes are (predictive values, net
benefit, losses, areas), of one that draws from all lesions. Where fewer than ten lesions count, a share has
the exact binomial interval of its lesions, one vote each, and an area has none. The calibration error has
none either: resampling inflates it, so that percentiles would lie above the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from skinlesion_cli.decisions.evaluation.sums import (
    NET_BENEFIT_THRESHOLDS,
    figures_from_sums,
    image_features,
    mean_of_defined,
)
from skinlesion_cli.decisions.statistics.bounds import binomial_interval
from skinlesion_cli.decisions.statistics.lesions import Lesions, group, votes
from skinlesion_cli.decisions.statistics.metrics import checked
from skinlesion_cli.decisions.statistics.resampling import Ranking, Resamples, lesion_sums
from skinlesion_cli.decisions.triage import malignant_probability
from skinlesion_cli.errors import DataError
from skinlesion_cli.taxonomy import ClassList

FEWEST_LESIONS = 10
_SHARES_OF_A_CLASS = ("sensitivity/", "specificity/", "malignant/sensitivity", "malignant/specificity")
_NO_INTERVAL = (float("nan"), float("nan"))


@dataclass(frozen=True)
class Labelled:
    """Labelled predictions: what is judged. `decided` is the final decision, -1 for none."""

    labels: np.ndarray
    probabilities: np.ndarray
    decided: np.ndarray
    lesion_ids: np.ndarray
    classes: ClassList


@dataclass(frozen=True)
class Estimate:
    """A figure, its 95 % interval, and how many resamples left it undefined; NaN: undefined."""

    value: float
    low: float
    high: float
    undefined_resamples: int = 0


@dataclass(frozen=True)
class Figures:
    """`values` by name; `replicates` (n_resamples,) by the same names, paired by seed; `small`: 95 %
    intervals that stand in for percentiles where few lesions count (NaN: none)."""

    values: Mapping[str, float]
    replicates: Mapping[str, np.ndarray] = field(default_factory=dict)
    small: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def estimate(self, name: str, confidence: float = 0.95) -> Estimate:
        """Value and interval of one figure."""
        if name in self.small:
            return Estimate(self.values[name], *self.small[name])
        return _estimate(self.values[name], self.replicates.get(name), confidence)

    def difference(self, other: Figures, name: str, confidence: float = 0.95) -> Estimate:
        """This minus the other, resample by resample (paired bootstrap)."""
        mine, theirs = self.replicates.get(name), other.replicates.get(name)
        paired = None if mine is None or theirs is None else mine - theirs
        return _estimate(self.values[name] - other.values[name], paired, confidence)


def _estimate(value: float, replicates: np.ndarray | None, confidence: float) -> Estimate:
    if replicates is None or np.isnan(value):
        return Estimate(value, float("nan"), float("nan"))
    defined = replicates[~np.isnan(replicates)]
    if not defined.size:
        return Estimate(value, float("nan"), float("nan"), len(replicates))
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1.0 - tail])
    return Estimate(value, float(low), float(high), len(replicates) - defined.size)


def evaluate(
    data: Labelled,
    *,
    subgroups: Mapping[str, np.ndarray] | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
    ranking: bool = True,
) -> Figures:
    """Every figure and its replicates.

    Parameters
    ----------
    subgroups : name -> bool (n_images,); each gets `subgroup/<name>/bacc`, `.../malignant_sensitivity` and
        `.../malignant_specificity`.
    n_resamples : 0 gives the values alone.
    ranking : AUC and average precision too (the slow part).

    Names: `bacc`, `malignant_bacc`, `accuracy`, `sensitivity/MEL` and so on for `specificity`, `ppv`, `npv`,
    `auc`, `ap`; `macro_auc`; `malignant/auc`, `malignant/ap`, `malignant/sensitivity`, ... (decided malignant
    or not); `brier`, `log_loss`, `ece`; `net_benefit/0.10` of the malignant probability,
    `net_benefit_all/0.10` of referring everyone. All that is said of malignancy is NaN where no class is.
    Net benefit: TP/n - FP/n · t/(1-t) (Vickers & Elkin, 2006).

    Raises
    ------
    DataError : no images.
    """
    labels, values, classes = np.asarray(data.labels), checked(data.probabilities), data.classes
    if len(labels) == 0:
        raise DataError("there are no labelled predictions to evaluate")
    lesions = group(data.lesion_ids, labels)
    groups = dict(subgroups or {})
    sums = lesion_sums(image_features(labels, values, np.asarray(data.decided), groups, classes), lesions)
    ranks = _rankings(labels, values, lesions, classes) if ranking else {}

    def figures_of(weights: np.ndarray) -> dict[str, np.ndarray]:
        values = figures_from_sums(weights @ sums, list(groups), classes)
        for name, rank in ranks.items():
            auc, ap = rank.figures(weights)
            prefix, _, suffix = name.partition("/")
            values[f"{prefix}/auc" if not suffix else f"auc/{suffix}"] = auc
            values[f"{prefix}/ap" if not suffix else f"ap/{suffix}"] = ap
        if ranks:
            aucs = np.stack([values[f"auc/{name}"] for name in classes.codes])
            values["macro_auc"] = mean_of_defined(aucs)
        return values

    once = figures_of(np.ones((1, lesions.n), dtype=np.float32))
    replicates: dict[str, np.ndarray] = {}
    if n_resamples:
        within = Resamples(lesions, labels[lesions.first], n_resamples, seed)
        overall = Resamples(lesions, None, n_resamples, seed)
        chunks = [figures_from_sums(weights @ sums, list(groups), classes) for weights in within.weights()]
        replicates = {
            name: np.concatenate([chunk[name] for chunk in chunks]) for name in once if _within_class(name)
        }
        chunks = [figures_of(weights) for weights in overall.weights()]
        replicates |= {
            name: np.concatenate([chunk[name] for chunk in chunks])
            for name in once
            if not _within_class(name) and name != "ece"
        }
    small = _small(data, lesions, groups) if n_resamples else {}
    return Figures(
        {name: float(value[0]) for name, value in once.items()},
        replicates,
        {name: interval for name, interval in small.items() if name in once},
    )


def _within_class(name: str) -> bool:
    """Whether a figure is made of shares within a class."""
    return name in ("bacc", "malignant_bacc") or name.startswith(("subgroup/", *_SHARES_OF_A_CLASS))


def _small(
    data: Labelled, lesions: Lesions, groups: Mapping[str, np.ndarray]
) -> dict[str, tuple[float, float]]:
    """Intervals of the figures on which fewer than ten lesions count."""
    intervals: dict[str, tuple[float, float]] = {}
    labels, decided = np.asarray(data.labels), np.asarray(data.decided)
    every = np.ones(len(labels), dtype=bool)

    def share(name: str, counted: np.ndarray, hit: np.ndarray) -> None:
        codes = lesions.codes[counted]
        if len(np.unique(codes)) < FEWEST_LESIONS:
            right = votes(hit[counted].astype(float), codes) > 0.5
            intervals[name] = binomial_interval(int(right.sum()), len(right))

    def against_the_rest(prefix: str, suffix: str, positive: np.ndarray, called: np.ndarray) -> None:
        share(f"{prefix}sensitivity{suffix}", positive, called)
        share(f"{prefix}specificity{suffix}", ~positive, ~called)
        share(f"{prefix}ppv{suffix}", called, positive)
        share(f"{prefix}npv{suffix}", ~called, ~positive)
        sides = (len(np.unique(lesions.codes[side])) for side in (positive, ~positive))
        if min(sides) < FEWEST_LESIONS:
            intervals.update(dict.fromkeys((f"{prefix}auc{suffix}", f"{prefix}ap{suffix}"), _NO_INTERVAL))

    if lesions.n < FEWEST_LESIONS:
        intervals.update(dict.fromkeys(("macro_auc", "brier", "log_loss"), _NO_INTERVAL))
        for threshold in NET_BENEFIT_THRESHOLDS:
            names = (f"net_benefit/{threshold:.2f}", f"net_benefit_all/{threshold:.2f}")
            intervals.update(dict.fromkeys(names, _NO_INTERVAL))
    share("accuracy", every, decided == labels)
    for index, name in enumerate(data.classes.codes):
        against_the_rest("", f"/{name}", labels == index, decided == index)
    malignant = data.classes.is_malignant
    ill, called = malignant[labels], np.append(malignant, False)[decided]
    against_the_rest("malignant/", "", ill, called)
    for group_name, mask in ({**groups, "": every}).items():
        inside = np.asarray(mask, dtype=bool)
        prefix = f"subgroup/{group_name}/" if group_name else ""
        if len(np.unique(lesions.codes[inside])) < FEWEST_LESIONS:
            intervals.update(dict.fromkeys((f"{prefix}bacc", f"{prefix}malignant_bacc"), _NO_INTERVAL))
        share(f"{prefix}malignant_sensitivity", inside & ill, called)
        share(f"{prefix}malignant_specificity", inside & ~ill, ~called)
    return intervals


def _rankings(
    labels: np.ndarray, values: np.ndarray, lesions: Lesions, classes: ClassList
) -> dict[str, Ranking]:
    rankings = {
        f"class/{name}": Ranking.of(values[:, index], labels == index, lesions)
        for index, name in enumerate(classes.codes)
    }
    rankings["malignant"] = Ranking.of(
        malignant_probability(values, classes), classes.is_malignant[labels], lesions
    )
    return rankings


def thresholded(probabilities: np.ndarray, decided: np.ndarray) -> np.ndarray:
    """Rows whose maximum is the decision, for scorers that take the argmax: float32 (n_images, n_classes).

    (p + 2·e_decided) / 3: the decided class is at 2/3 or above, every other at 1/3 or below, rows sum to 1.
    """
    values = checked(probabilities)
    chosen = np.zeros_like(values)
    chosen[np.arange(len(values)), decided] = 2.0
    result: np.ndarray = ((values + chosen) / 3.0).astype(np.float32)
    return result
