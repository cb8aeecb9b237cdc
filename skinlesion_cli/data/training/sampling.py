"""The order of the images in an epoch, as a function of the seed and the epoch alone.

Nothing here has state, so an interrupted run resumes with the same images for any number of worker processes
or devices.
"""

from __future__ import annotations

import numpy as np


def draw_weights(
    labels: np.ndarray, sources: np.ndarray, *, class_power: float, source_power: float = 0.0
) -> np.ndarray:
    """Relative probability of each image to be drawn, float64 (n,): count(class) ** -class_power ·
    count(source) ** -source_power.

    With a class power of 1 alone all classes are equally likely, with a source power of 1 alone all sources.

    Parameters
    ----------
    labels : class index of each image, int64 (n,).
    sources : name of the source of each image, str (n,).
    """
    _, source, n_of_source = np.unique(sources, return_inverse=True, return_counts=True)
    n_of_class = np.bincount(labels)[labels]
    weights: np.ndarray = n_of_class**-class_power * n_of_source[source] ** -source_power
    return weights


def epoch_order(
    n_images: int, *, seed: int, epoch: int, weights: np.ndarray | None, n_draws: int
) -> np.ndarray:
    """Row indexes, int64 (n_draws,), of the images of this epoch.

    Parameters
    ----------
    weights : None uses every image equally often, each permutation finished before the next begins. Otherwise
        rows are drawn with replacement, each in proportion to its weight, float64 (n_images,).
    """
    generator = np.random.default_rng([seed, epoch, 0x5A])
    if weights is None:
        rounds = [generator.permutation(n_images) for _ in range(-(-n_draws // n_images))]
        return np.concatenate(rounds)[:n_draws].astype(np.int64)
    return generator.choice(n_images, size=n_draws, replace=True, p=weights / weights.sum()).astype(np.int64)


def sample_seed(seed: int, epoch: int, position: int) -> int:
    """Seed of one image's augmentation: different for every position in every epoch,
    independent of the worker.
    """
    return int(np.random.SeedSequence([seed, epoch, position]).generate_state(1, np.uint32)[0])
