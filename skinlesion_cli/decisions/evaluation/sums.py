"""Figures from sums over images: one row of sums per image, added up under any weights of the lesions.

A resample of lesions is then a matrix product, and every figure follows from its sums.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from skinlesion_cli.decisions.calibration import SMALLEST_PROBABILITY
from skinlesion_cli.decisions.probability_fit import ECE_BINS
from skinlesion_cli.decisions.statistics.metrics import ratio
from skinlesion_cli.decisions.triage import malignant_probability
from skinlesion_cli.taxonomy import ClassList

NET_BENEFIT_THRESHOLDS: tuple[float, ...] = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)


def _one_hot(codes: np.ndarray, n: int) -> np.ndarray:
    indicators = np.zeros((len(codes), n), dtype=np.float32)
    indicators[np.arange(len(codes)), codes] = 1.0
    return indicators


def image_features(
    labels: np.ndarray,
    values: np.ndarray,
    decided: np.ndarray,
    groups: Mapping[str, np.ndarray],
    classes: ClassList,
) -> np.ndarray:
    """float32 (n_images, n_columns): columns whose sums over images give every figure but the areas.

    `figures_from_sums` takes them apart in the same order. `values` are probabilities (n_images, n_classes);
    `decided` is -1 where nothing was decided; `groups` are bool (n_images,) by name.
    """
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


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is defined; NaN where nothing is."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=0), defined.sum(axis=0))


def figures_from_sums(sums: np.ndarray, groups: list[str], classes: ClassList) -> dict[str, np.ndarray]:
    """Every figure but the areas, by name, each float64 (b,), from sums of shape (b, n_columns).

    The columns are those of `image_features`, for the same subgroups in the same order.
    """
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
        values[f"subgroup/{name}/bacc"] = mean_of_defined(ratio(right, support).T)
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
        "bacc": mean_of_defined(recall.T),
        "malignant_bacc": mean_of_defined(recall[:, malignant].T),
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
