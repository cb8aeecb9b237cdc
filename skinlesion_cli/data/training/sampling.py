"""The order of the images in an epoch, as a function of the seed and the epoch alone.

Nothing here has state, so an interrupted run resumes with the same images for any number of worker processes
or devices.
"""

from __future__ import annotations

import numpy as np


def epoch_order(
    labels: np.ndarray, *, seed: int, epoch: int, power: float | None, n_draws: int
) -> np.ndarray:
    """Row indexes, int64 (n_draws,), of the images of this epoch.

    Parameters
    ----------
    labels : class index of each row, int64 (n,).
    power : None uses every image equally often, each permutation finished before the next begins. Otherwise
        rows are drawn with replacement with weight count(class) ** -power: with 1,
        all classes are equally likely.
    """
    generator = np.random.default_rng([seed, epoch, 0x5A])
    n = len(labels)
    if power is None:
        rounds = [generator.permutation(n) for _ in range(-(-n_draws // n))]
        return np.concatenate(rounds)[:n_draws].astype(np.int64)
    counts = np.bincount(labels)
    weights = counts[labels].astype(np.float64) ** -power
    return generator.choice(n, size=n_draws, replace=True, p=weights / weights.sum()).astype(np.int64)


def sample_seed(seed: int, epoch: int, position: int) -> int:
    """Seed of one image's augmentation: different for every position in every epoch,
    independent of the worker.
    """
    return int(np.random.SeedSequence([seed, epoch, position]).generate_state(1, np.uint32)[0])
