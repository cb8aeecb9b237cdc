"""Bounds on a mean over lesions of which each counts with a share between 0 and 1.

A lesion with several photographs may be caught on some of them: its share lies between 0 and 1, and no
binomial law holds. Nor does one for a ratio, such as the share of malignant photographs among those referred,
where a lesion may be in with some of its photographs. The bound of Hoeffding and Bentkus holds for
independent values in [0, 1] of any distribution and any number (Hoeffding, 1963; Bentkus, 2004; together:
Bates et al., 2021, arXiv:2101.02703, 3.1). On the shares of real lesions it is as tight as betting
(Waudby-Smith & Ramdas, 2024, arXiv:2010.09686), and unlike that it does not depend on an order of the
lesions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

_STEPS = 14  # of halving: bounds to 0.0001
_ROUNDING = 1e-9


def p_value(mean: float, n: int, at_most: float) -> float:
    """Of the hypothesis that `n` independent values in [0, 1], whose mean is `mean`, have an expectation of
    `at_most` or less: small where the mean lies far above it."""
    from scipy.special import bdtr  # the binomial distribution, without the overhead of scipy.stats

    if n == 0 or mean <= at_most:
        return 1.0
    if at_most <= 0.0:
        return 0.0
    misses = math.ceil(n * (1.0 - mean) - _ROUNDING)
    bentkus = math.e * float(bdtr(misses, n, 1.0 - at_most))
    divergence = mean * math.log(mean / at_most)
    if mean < 1.0:
        divergence += (1.0 - mean) * math.log((1.0 - mean) / (1.0 - at_most))
    return min(bentkus, math.exp(-n * divergence), 1.0)


def mean_lower_bound(values: np.ndarray, confidence: float) -> float:
    """One-sided lower bound of the expectation of independent values in [0, 1]; 0 without values."""
    n = len(values)
    mean = float(np.mean(values)) if n else 0.0
    return _largest(lambda m: p_value(mean, n, m) <= 1.0 - confidence)


def share_is_above(inside: np.ndarray, hits: np.ndarray, share: float, confidence: float) -> bool:
    """Whether E[hits] / E[inside] lies above `share` with this confidence.

    Parameters
    ----------
    inside : (n_lesions,) in [0, 1], such as the share of a lesion's photographs that are referred.
    hits : (n_lesions,) in [0, inside], such as the same where the lesion is malignant, 0 elsewhere.

    Lesions that are not inside at all say nothing. Of the others, share + hits - share · inside lies in [0,
    1] and has an expectation above `share` exactly where the ratio has.
    """
    weights = np.asarray(inside, dtype=np.float64)
    n = int((weights > 0).sum())
    excess = float((np.asarray(hits) - share * weights).sum())
    return n > 0 and p_value(share + excess / n, n, share) <= 1.0 - confidence


def share_lower_bound(inside: np.ndarray, hits: np.ndarray, confidence: float) -> float:
    """One-sided lower bound of E[hits] / E[inside]; 0 where nothing is inside."""
    return _largest(lambda share: share_is_above(inside, hits, share, confidence))


def share_upper_bound(inside: np.ndarray, hits: np.ndarray, confidence: float) -> float:
    """One-sided upper bound of E[hits] / E[inside]; 1 where nothing is inside."""
    return 1.0 - share_lower_bound(inside, np.asarray(inside) - np.asarray(hits), confidence)


def mean_by_lesion(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Mean of the images' values over each lesion that has any: (n_lesions among `codes`,), by lesion
    number.
    """
    _, lesion, counts = np.unique(codes, return_inverse=True, return_counts=True)
    return np.bincount(lesion, np.asarray(values, dtype=np.float64), len(counts)) / counts


def _largest(holds: Callable[[float], bool]) -> float:
    """The largest share in [0, 1) that holds, where all smaller ones do; 0 where none does."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
