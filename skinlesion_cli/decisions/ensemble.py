"""How the probabilities of several networks become one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skinlesion_cli.errors import DataError
from skinlesion_cli.taxonomy import N_CLASSES


def bacc_weights(bacc: Sequence[float]) -> np.ndarray:
    """Weights proportional to the members' validation BACC, as in the published system.

    Parameters
    ----------
    bacc : balanced accuracy (0 to 1) of each member on the same validation images.

    Returns
    -------
    float64 of shape (n_members,), summing to 1.

    Raises
    ------
    DataError : no members, or a BACC that is not finite, is negative, or all are 0.
    """
    values = np.asarray(list(bacc), dtype=np.float64)
    if values.size == 0:
        raise DataError("an ensemble needs at least one member")
    if not np.isfinite(values).all() or (values < 0).any() or values.sum() == 0:
        raise DataError(
            f"these validation BACCs cannot weight an ensemble: {', '.join(map(str, values))}",
            "Weight the members alike (`--method equal`), or leave out the member that has none.",
        )
    return values / values.sum()


def equal_weights(n_members: int) -> np.ndarray:
    """float64 of shape (n_members,), all alike, summing to 1."""
    return bacc_weights([1.0] * n_members)


def combine(probabilities: np.ndarray, weights: Sequence[float] | np.ndarray) -> np.ndarray:
    """Weighted mean of the members' probabilities.

    Parameters
    ----------
    probabilities : float32 of shape (n_members, n_images, 7).
    weights : shape (n_members,), not negative, summing to 1.

    Returns
    -------
    float32 of shape (n_images, 7); summed in float64, so that the order of the members costs no digit.

    Raises
    ------
    DataError : shapes do not fit, or weights are not weights.
    """
    stack = np.asarray(probabilities)
    share = np.asarray(weights, dtype=np.float64)
    if stack.ndim != 3 or stack.shape[2] != N_CLASSES or share.shape != (stack.shape[0],):
        raise DataError(
            f"probabilities of shape {stack.shape} and weights of shape {share.shape} do not make an ensemble"
        )
    if not np.isfinite(share).all() or (share < 0).any() or abs(share.sum() - 1.0) > 1e-6:
        raise DataError(f"ensemble weights must not be negative and must sum to 1, not {share.tolist()}")
    return np.einsum("m,mik->ik", share, stack.astype(np.float64)).astype(np.float32)
