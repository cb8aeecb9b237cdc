"""The order of the forward passes of an ensemble, and how close the mean of the first few is to that of all.

An ensemble of networks over several views is a mean over a grid of networks and views. It is worked through
in steps: a step is one member group at one view, and takes as many forward passes as the group has members. A
member group is one network, or several that are taken together, such as the folds of one. The order is fixed
and goes through the groups first, since another network adds more information than another view does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from skinlesion_cli.errors import DataError

# Variance between networks over that between views of one network, in log odds. A constant, not fitted: the
# rule that is tested on validation images must not depend on them. Its size only shifts care between early
# and late steps; how careful the rule is as a whole is fitted.
NETWORK_VARIANCE = 4.0
# What messages say a step is.
ONE_STEP = "one view by one network, or by all folds of it"


@dataclass(frozen=True)
class Steps:
    """The steps of an ensemble.

    Attributes
    ----------
    weights : of the member groups, summing to 1. One without weight is never run.
    n_views : of each group.
    """

    weights: tuple[float, ...]
    n_views: int

    def __post_init__(self) -> None:
        share = np.array(self.weights, dtype=np.float64)
        if not np.isfinite(share).all() or (share < 0).any() or abs(share.sum() - 1.0) > 1e-6:
            raise DataError(
                f"weights of member groups must not be negative and must sum to 1, not {share.tolist()}"
            )

    @cached_property
    def order(self) -> tuple[tuple[int, int], ...]:
        """Member group and view of every step."""
        weighted = [group for group, weight in enumerate(self.weights) if weight > 0]
        return tuple((group, view) for view in range(self.n_views) for group in weighted)

    @property
    def n(self) -> int:
        """How many there are."""
        return len(self.order)

    @cached_property
    def _seen(self) -> np.ndarray:
        """Views seen by each group after each step: int64 (n_steps, n_groups)."""
        steps = np.zeros((self.n, len(self.weights)), dtype=np.int64)
        steps[np.arange(self.n), [group for group, _ in self.order]] = 1
        return steps.cumsum(axis=0)

    @cached_property
    def _shares(self) -> np.ndarray:
        """Weight of each group after each step, float64 (n_steps, n_groups):
        those not yet run count nothing.
        """
        share = np.where(self._seen > 0, np.array(self.weights, dtype=np.float64), 0.0)
        result: np.ndarray = share / share.sum(axis=1, keepdims=True)
        return result

    @cached_property
    def spreads(self) -> np.ndarray:
        """float64 (n_steps,): standard error of the mean after each step, in units of that of one view.

        Of a mean with weights c that estimates one with weights w, over groups that differ with variance
        `NETWORK_VARIANCE` and views of a group that differ with variance 1: the square root of
        NETWORK_VARIANCE · Σ_groups (c - w)² + Σ_steps (c/seen - w/n_views)², each step that was not taken
        with c = 0. For a single group this is sqrt(1/k - 1/K), that of a mean of k drawn from K without
        replacement (Cochran, 1977, eq. 2.12, up to its constant). 0 after the last step.
        """
        weights, seen, share = np.array(self.weights, dtype=np.float64), self._seen, self._shares
        between = ((share - weights) ** 2).sum(axis=1)
        taken = seen * (share / np.maximum(seen, 1) - weights / self.n_views) ** 2
        left = (self.n_views - seen) * (weights / self.n_views) ** 2
        left[:, weights == 0] = 0.0
        spreads: np.ndarray = np.sqrt(NETWORK_VARIANCE * between + (taken + left).sum(axis=1))
        spreads[-1] = 0.0
        return spreads

    def estimate(self, sums: np.ndarray, n_steps: int) -> np.ndarray:
        """The estimate of the ensemble's probabilities after `n_steps` steps.

        Parameters
        ----------
        sums : float64 (n_images, n_groups, n_classes), probabilities of each group summed over the views
            seen so far.

        Returns
        -------
        float32 (n_images, n_classes): the weighted mean of the groups run so far, each the mean of its views.
        """
        factor = self._shares[n_steps - 1] / np.maximum(self._seen[n_steps - 1], 1)
        result: np.ndarray = np.einsum("g,ngc->nc", factor, sums).astype(np.float32)
        return result

    def estimates(self, group_probabilities: np.ndarray) -> np.ndarray:
        """The same after every step: (n_images, n_groups, n_views, n_classes) to float32 (n_images, n_steps,
        n_classes).
        """
        n_images, n_groups, _, n_classes = group_probabilities.shape
        sums = np.zeros((n_images, n_groups, n_classes))
        estimates = np.empty((n_images, self.n, n_classes), dtype=np.float32)
        for step, (group, view) in enumerate(self.order):
            sums[:, group] += group_probabilities[:, group, view]
            estimates[:, step] = self.estimate(sums, step + 1)
        return estimates
