"""Looks: one network at one test-time view, one after the other, and how sure a few of them make us of all.

An ensemble of networks over several views is a mean over a grid of looks. They are taken in a fixed order that
goes round the networks first, since another network says more that is new than another view does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from skinlesion_cli.errors import DataError

# Variance between networks over that between views of one network, in log odds. A constant, not fitted: the rule
# that is tested on validation images must not depend on them. Its size only shifts care between early and late
# looks; how careful the rule is as a whole is fitted.
NETWORK_VARIANCE = 4.0


@dataclass(frozen=True)
class Looks:
    """The looks of an ensemble.

    Attributes
    ----------
    weights : of the voices, summing to 1. A voice is a network, or the folds of one, which speak together. One
        without weight is never looked with.
    n_views : of each voice.
    """

    weights: tuple[float, ...]
    n_views: int

    def __post_init__(self) -> None:
        share = np.array(self.weights, dtype=np.float64)
        if not np.isfinite(share).all() or (share < 0).any() or abs(share.sum() - 1.0) > 1e-6:
            raise DataError(f"weights of voices must not be negative and must sum to 1, not {share.tolist()}")

    @cached_property
    def order(self) -> tuple[tuple[int, int], ...]:
        """Voice and view of every look."""
        heard = [voice for voice, weight in enumerate(self.weights) if weight > 0]
        return tuple((voice, view) for view in range(self.n_views) for voice in heard)

    @property
    def n(self) -> int:
        """How many there are."""
        return len(self.order)

    @cached_property
    def _seen(self) -> np.ndarray:
        """Views seen by each voice after each look: int64 (n_looks, n_voices)."""
        steps = np.zeros((self.n, len(self.weights)), dtype=np.int64)
        steps[np.arange(self.n), [voice for voice, _ in self.order]] = 1
        return steps.cumsum(axis=0)

    @cached_property
    def _shares(self) -> np.ndarray:
        """Weight of each voice after each look, float64 (n_looks, n_voices): those not yet heard count nothing."""
        share = np.where(self._seen > 0, np.array(self.weights, dtype=np.float64), 0.0)
        return share / share.sum(axis=1, keepdims=True)

    @cached_property
    def spreads(self) -> np.ndarray:
        """float64 (n_looks,): standard error of the mean after each look, in units of that of one view.

        Of a mean with weights c that stands for one with weights w, over voices that differ with variance
        `NETWORK_VARIANCE` and views of a voice that differ with variance 1: the square root of
        NETWORK_VARIANCE · Σ_voices (c - w)² + Σ_looks (c/seen - w/n_views)², each look that was not taken with
        c = 0. For a single voice this is sqrt(1/k - 1/K), that of a mean of k drawn from K without replacement
        (Cochran, 1977, eq. 2.12, up to its constant). 0 after the last look.
        """
        weights, seen, share = np.array(self.weights, dtype=np.float64), self._seen, self._shares
        between = ((share - weights) ** 2).sum(axis=1)
        taken = seen * (share / np.maximum(seen, 1) - weights / self.n_views) ** 2
        left = (self.n_views - seen) * (weights / self.n_views) ** 2
        left[:, weights == 0] = 0.0
        found = np.sqrt(NETWORK_VARIANCE * between + (taken + left).sum(axis=1))
        found[-1] = 0.0
        return found

    def estimate(self, sums: np.ndarray, n_looks: int) -> np.ndarray:
        """The ensemble's probabilities as they look after `n_looks` looks.

        Parameters
        ----------
        sums : float64 (n_images, n_voices, 7), probabilities of each voice summed over the views seen so far.

        Returns
        -------
        float32 (n_images, 7): the weighted mean of the voices heard so far, each the mean of its views.
        """
        factor = self._shares[n_looks - 1] / np.maximum(self._seen[n_looks - 1], 1)
        return np.einsum("v,nvc->nc", factor, sums).astype(np.float32)

    def estimates(self, voice_probabilities: np.ndarray) -> np.ndarray:
        """The same after every look: (n_images, n_voices, n_views, 7) to float32 (n_images, n_looks, 7)."""
        n_images, n_voices, _, n_classes = voice_probabilities.shape
        sums = np.zeros((n_images, n_voices, n_classes))
        found = np.empty((n_images, self.n, n_classes), dtype=np.float32)
        for look, (voice, view) in enumerate(self.order):
            sums[:, voice] += voice_probabilities[:, voice, view]
            found[:, look] = self.estimate(sums, look + 1)
        return found
