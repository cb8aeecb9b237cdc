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

from skinlesion_cli.decisions.calibration import SMALLEST_PROBABILITY
from skinlesion_cli.decisions.probability_fit import ECE_BINS
from skinlesion_cli.decisions.statistics.bounds import binomial_interval
from skinlesion_cli.decisions.statistics.lesions import Lesions, group, votes
from skinlesion_cli.decisions.statistics.metrics import checked, ratio
from skinlesion_cli.decisions.statistics.resampling import Ranking, Resamples, lesion_sums
from skinlesion_cli.decisions.triage import malignant_probability
from skinlesion_cli.errors import DataError
from skinlesion_cli.taxonomy import ClassList

FEWEST_LESIONS = 10
NET_BENEFIT_THRESHOLDS: tuple[float, ...] = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
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
    sums = lesion_sums(_image_features(labels, values, np.asarray(data.decided), groups, classes), lesions)
    ranks = _rankings(labels, values, lesions, classes) if ranking else {}

    def figures_of(weights: np.ndarray) -> dict[str, np.ndarray]:
        values = _from_sums(weights @ sums, list(groups), classes)
        for name, rank in ranks.items():
            auc, ap = rank.figures(weights)
            prefix, _, suffix = name.partition("/")
            values[f"{prefix}/auc" if not suffix else f"auc/{suffix}"] = auc
            values[f"{prefix}/ap" if not suffix else f"ap/{suffix}"] = ap
        if ranks:
            aucs = np.stack([values[f"auc/{name}"] for name in classes.codes])
            values["macro_auc"] = _mean_of_defined(aucs)
        return values

    once = figures_of(np.ones((1, lesions.n), dtype=np.float32))
    replicates: dict[str, np.ndarray] = {}
    if n_resamples:
        within = Resamples(lesions, labels[lesions.first], n_resamples, seed)
        overall = Resamples(lesions, None, n_resamples, seed)
        chunks = [_from_sums(weights @ sums, list(groups), classes) for weights in within.weights()]
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


def _one_hot(codes: np.ndarray, n: int) -> np.ndarray:
    indicators = np.zeros((len(codes), n), dtype=np.float32)
    indicators[np.arange(len(codes)), codes] = 1.0
    return indicators


def _image_features(
    labels: np.ndarray,
    values: np.ndarray,
    decided: np.ndarray,
    groups: Mapping[str, np.ndarray],
    classes: ClassList,
) -> np.ndarray:
    """Columns whose sums over images give every figure; `_from_sums` takes them apart in the same order."""
    rows, n_classes = np.arange(len(labels)), classes.n_classes
    column = np.where(decided < 0, n_classes, decided)
    # The last column of the matrix is "none".
    confusion = _one_hot(labels * (n_classes + 1) + column, n_classes * (n_classes + 1))
    truth = np.eye(n_classes)[labels]
    confidence = values.max(axis=1)
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    gap = (values.argmax(axis=1) == labels) - confidence
    malignant = malignant_probability(values, classes).astype(np.float64)
    over = malignant[:, None] > np.array(NET_BENEFIT_THRESHOLDS)[None, :]
    ill = classes.is_malignant[labels][:, None]
    blocks = [
        confusion,
        ((values - truth) ** 2).sum(axis=1)[:, None],
        -np.log(np.maximum(values[rows, labels], SMALLEST_PROBABILITY))[:, None],
        _one_hot(bins, ECE_BINS) * gap[:, None],
        over & ill,
        over & ~ill,
    ]
    for mask in groups.values():
        inside = np.asarray(mask, dtype=bool)[:, None]
        right = (decided == labels)[:, None]
        said = (np.append(classes.is_malignant, False)[column])[:, None]
        blocks += [truth * inside, truth * (inside & right)]
        blocks += [inside & ill & said, inside & ill, inside & ~ill & ~said, inside & ~ill]
    return np.concatenate([np.asarray(block, dtype=np.float32) for block in blocks], axis=1)


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is defined; NaN where nothing is."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=0), defined.sum(axis=0))


def _from_sums(sums: np.ndarray, groups: list[str], classes: ClassList) -> dict[str, np.ndarray]:
    sums = sums.astype(np.float64)
    n_classes, taken = classes.n_classes, 0

    def take(width: int) -> np.ndarray:
        nonlocal taken
        taken += width
        return sums[:, taken - width : taken]

    matrix = take(n_classes * (n_classes + 1)).reshape(-1, n_classes, n_classes + 1)
    values = _decision_figures(matrix, classes)
    n = matrix.sum(axis=(1, 2))
    values["brier"], values["log_loss"] = ratio(take(1)[:, 0], n), ratio(take(1)[:, 0], n)
    values["ece"] = ratio(np.abs(take(ECE_BINS)).sum(axis=1), n)
    hits, false = take(len(NET_BENEFIT_THRESHOLDS)), take(len(NET_BENEFIT_THRESHOLDS))
    values |= _net_benefit(matrix, hits, false, classes)
    for name in groups:
        support, right = take(n_classes), take(n_classes)
        values[f"subgroup/{name}/bacc"] = _mean_of_defined(ratio(right, support).T)
        caught, ill, cleared, well = (take(1)[:, 0] for _ in range(4))
        values[f"subgroup/{name}/malignant_sensitivity"] = ratio(caught, ill)
        values[f"subgroup/{name}/malignant_specificity"] = ratio(cleared, well)
    if not classes.has_malignant:
        undefined = np.full(len(sums), np.nan)
        values |= {name: undefined for name in values if "malignant" in name or "net_benefit" in name}
    return values


def _decision_figures(matrix: np.ndarray, classes: ClassList) -> dict[str, np.ndarray]:
    """From confusion matrices (b, n_classes, n_classes + 1)."""
    n_classes, malignant = classes.n_classes, classes.is_malignant
    support, said = matrix.sum(axis=2), matrix.sum(axis=1)[:, :n_classes]
    right = np.diagonal(matrix, axis1=1, axis2=2)
    n = support.sum(axis=1, keepdims=True)
    recall = ratio(right, support)
    false_calls = said - right
    cleared = n - support - false_calls
    shares = {
        "bacc": _mean_of_defined(recall.T),
        "malignant_bacc": _mean_of_defined(recall[:, malignant].T),
        "accuracy": ratio(right.sum(axis=1), n[:, 0]),
    }
    by_class = {
        "sensitivity": recall,
        "specificity": ratio(cleared, n - support),
        "ppv": ratio(right, said),
        "npv": ratio(cleared, n - said),
    }
    for figure, values in by_class.items():
        shares |= {f"{figure}/{name}": values[:, index] for index, name in enumerate(classes.codes)}
    ill = matrix[:, malignant]
    well = matrix[:, ~malignant]
    caught = ill[:, :, :n_classes][:, :, malignant].sum(axis=(1, 2))
    alarmed = well[:, :, :n_classes][:, :, malignant].sum(axis=(1, 2))
    n_ill, n_well = ill.sum(axis=(1, 2)), well.sum(axis=(1, 2))
    shares["malignant/sensitivity"] = ratio(caught, n_ill)
    shares["malignant/specificity"] = ratio(n_well - alarmed, n_well)
    shares["malignant/ppv"] = ratio(caught, caught + alarmed)
    shares["malignant/npv"] = ratio(n_well - alarmed, n_ill + n_well - caught - alarmed)
    return shares


def _net_benefit(
    matrix: np.ndarray, hits: np.ndarray, false: np.ndarray, classes: ClassList
) -> dict[str, np.ndarray]:
    n = matrix.sum(axis=(1, 2))
    ill = matrix[:, classes.is_malignant].sum(axis=(1, 2))
    shares = {}
    for column, threshold in enumerate(NET_BENEFIT_THRESHOLDS):
        odds = threshold / (1.0 - threshold)
        shares[f"net_benefit/{threshold:.2f}"] = ratio(hits[:, column] - odds * false[:, column], n)
        shares[f"net_benefit_all/{threshold:.2f}"] = ratio(ill - odds * (n - ill), n)
    return shares


def thresholded(probabilities: np.ndarray, decided: np.ndarray) -> np.ndarray:
    """Rows whose maximum is the decision, for scorers that take the argmax: float32 (n_images, n_classes).

    (p + 2·e_decided) / 3: the decided class is at 2/3 or above, every other at 1/3 or below, rows sum to 1.
    """
    values = checked(probabilities)
    chosen = np.zeros_like(values)
    chosen[np.arange(len(values)), decided] = 2.0
    result: np.ndarray = ((values + chosen) / 3.0).astype(np.float32)
    return result
