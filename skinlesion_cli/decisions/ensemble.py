"""Combining the probabilities of several networks: the weights of the members, and the weighted mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skinlesion_cli.decisions.calibration import SMALLEST_PROBABILITY
from skinlesion_cli.decisions.statistics.lesions import group
from skinlesion_cli.errors import DataError

METHODS: tuple[str, ...] = ("bacc", "equal", "stacked")
STACKING_PENALTY = 0.01


def bacc_weights(bacc: Sequence[float]) -> np.ndarray:
    """Weights proportional to the members' validation BACC, as in the published system.

    Parameters
    ----------
    bacc : balanced accuracy (0 to 1) of each member on the same validation images; published: of the epoch
        that was kept, on one view.

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
            "Weight the members equally (`--method equal`), or omit the member that has none.",
        )
    result: np.ndarray = values / values.sum()
    return result


def equal_weights(n_members: int) -> np.ndarray:
    """float64 of shape (n_members,), all alike, summing to 1."""
    return bacc_weights([1.0] * n_members)


def combine(probabilities: np.ndarray, weights: Sequence[float] | np.ndarray) -> np.ndarray:
    """Weighted mean of the members' probabilities.

    Parameters
    ----------
    probabilities : float32 of shape (n_members, n_images, n_classes).
    weights : shape (n_members,), not negative, summing to 1.

    Returns
    -------
    float32 of shape (n_images, n_classes); summed in float64, so that the order of the members
    costs no digit.

    Raises
    ------
    DataError : shapes do not fit, or weights are not weights.
    """
    stack = np.asarray(probabilities)
    share = np.asarray(weights, dtype=np.float64)
    if stack.ndim != 3 or share.shape != (stack.shape[0],):
        raise DataError(
            f"probabilities of shape {stack.shape} and weights of shape {share.shape} do not make an ensemble"
        )
    if not np.isfinite(share).all() or (share < 0).any() or abs(share.sum() - 1.0) > 1e-6:
        raise DataError(f"ensemble weights must not be negative and must sum to 1, not {share.tolist()}")
    result: np.ndarray = np.einsum("m,mik->ik", share, stack.astype(np.float64)).astype(np.float32)
    return result


def stacked_weights(
    labels: np.ndarray, probabilities: np.ndarray, lesion_ids: np.ndarray, penalty: float = STACKING_PENALTY
) -> np.ndarray:
    """Weights of the least log loss, pulled towards equal ones.

    Minimises mean -log(Σ_m w_m p_m[label]) + penalty · M · |w - 1/M|² over weights that are not negative and
    sum to 1, each lesion counting once (stacking with a convex combination: Breiman, 1996; van der Laan et
    al., 2007). The predictions must be out of fold: of images that no member was trained on.

    Parameters
    ----------
    labels : int64 (n_images,). probabilities : (n_members, n_images, n_classes). lesion_ids : (n_images,).

    Returns
    -------
    float64 (n_members,), summing to 1.
    """
    # Only fitting needs it, and loading it would take longer than starting to predict.
    from scipy.optimize import minimize

    stack = np.asarray(probabilities, dtype=np.float64)
    n_members, n_images = stack.shape[:2]
    if n_images == 0:
        raise DataError("there are no out-of-fold predictions to stack on")
    of_truth = np.maximum(stack[:, np.arange(n_images), labels], SMALLEST_PROBABILITY)
    lesions = group(lesion_ids, labels)
    share = 1.0 / lesions.sizes[lesions.codes] / lesions.n

    def objective(weights: np.ndarray) -> tuple[float, np.ndarray]:
        mixed = weights @ of_truth
        pull = weights - 1.0 / n_members
        value = -(share * np.log(mixed)).sum() + penalty * n_members * (pull**2).sum()
        return float(value), -(of_truth * (share / mixed)).sum(axis=1) + 2 * penalty * n_members * pull

    solution = minimize(
        objective,
        equal_weights(n_members),
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * n_members,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": lambda w: np.ones_like(w)},
    )
    weights = np.clip(solution.x, 0.0, None)
    result: np.ndarray = weights / weights.sum()
    return result
