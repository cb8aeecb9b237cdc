"""Folds for judging a fit on images whose lesion it never saw."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from skinlesion_cli.decisions.statistics.lesions import group
from skinlesion_cli.errors import DataError


def grouped_folds(
    labels: np.ndarray, lesion_ids: np.ndarray, n_folds: int = 5, seed: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of image numbers (fit on, held out): whole lesions, every class dealt out evenly.

    Raises
    ------
    DataError : fewer than two lesions.
    """
    lesions = group(lesion_ids, labels)
    if lesions.n < 2:
        raise DataError(f"cross-fitting needs at least 2 lesions, there are {lesions.n}")
    n_folds = min(n_folds, lesions.n)
    order = np.random.default_rng(seed).permutation(lesions.n)
    order = order[np.argsort(np.asarray(labels)[lesions.first][order], kind="stable")]
    fold_of = np.empty(lesions.n, dtype=np.int64)
    fold_of[order] = np.arange(lesions.n) % n_folds
    for fold in range(n_folds):
        held_out = fold_of[lesions.codes] == fold
        yield np.flatnonzero(~held_out), np.flatnonzero(held_out)
