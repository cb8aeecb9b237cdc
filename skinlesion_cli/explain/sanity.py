"""Whether maps mean anything for a network: two published tests, on pixels and numbers only.

Parameter randomisation (Adebayo et al., 2018, arXiv:1810.03292): maps of a network whose parameters were
shuffled should look different; a map that stays the same shows the image, not what the network learned.

Deletion and insertion (Petsiuk et al., 2018, arXiv:1806.07421): taking away the places that a map calls
important should lower the class's probability faster than taking away others, and bringing them back should
raise it faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageFilter
from scipy import stats

from skinlesion_cli.explain.cam import resized

# Probability of one class, float (n,), of images uint8 (n, s, s, 3).
Score = Callable[[np.ndarray], np.ndarray]
_STEPS = 10
_SHARES = np.linspace(0.0, 1.0, _STEPS + 1)
# Of the pixels, for the one figure that is said in words; a tenth or several.
ERASED_SHARE: Final = 0.2


@dataclass(frozen=True)
class MeanOf:
    """A mean over images with its 95 % interval (Student's t); None where it is undefined."""

    mean: float | None
    low: float | None
    high: float | None
    n: int


def mean_of(values: np.ndarray) -> MeanOf:
    """Mean of the finite values; undefined without any, without an interval below two."""
    kept = np.asarray(values, dtype=np.float64)
    kept = kept[np.isfinite(kept)]
    if not len(kept):
        return MeanOf(None, None, None, 0)
    mean = float(kept.mean())
    if len(kept) < 2:
        return MeanOf(mean, None, None, len(kept))
    half = float(stats.t.ppf(0.975, len(kept) - 1) * kept.std(ddof=1) / np.sqrt(len(kept)))
    return MeanOf(mean, mean - half, mean + half, len(kept))


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's correlation of two maps; NaN where one of them is the same everywhere."""
    one, other = first.ravel(), second.ravel()
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(stats.spearmanr(one, other).statistic)


@dataclass(frozen=True)
class Curves:
    """Probability of one class while an image is erased, or brought back, in the order of a map.

    Attributes
    ----------
    deleted, inserted : float64 (11,), after 0, 10, ... 100 % of the pixels.
    """

    deleted: np.ndarray
    inserted: np.ndarray

    @property
    def deletion(self) -> float:
        """Area under the deletion curve, 0 to 1 (trapezoid rule); lower is better."""
        return float(np.trapezoid(self.deleted, _SHARES))

    @property
    def insertion(self) -> float:
        """Area under the insertion curve, 0 to 1 (trapezoid rule); higher is better."""
        return float(np.trapezoid(self.inserted, _SHARES))

    @property
    def drop(self) -> float:
        """How far the probability falls, -1 to 1, when `ERASED_SHARE` of the pixels are erased."""
        return float(self.deleted[0] - self.deleted[round(ERASED_SHARE * _STEPS)])


def perturbation_curves(image: np.ndarray, heats: Sequence[np.ndarray], score: Score) -> list[Curves]:
    """Deletion and insertion curves of an image in the order of each map.

    Parameters
    ----------
    image : uint8 (s, s, 3). heats : each float (h, w); the larger a value,
        the sooner its place is erased or brought back.
    score : the class's probability of images like this one.

    What is erased is replaced by a blurred image, which is still an image of skin; grey would be news to
    the network. All curves begin or end at the same two images, which are scored once.
    """
    side_y, side_x = image.shape[:2]
    blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(max(side_x, side_y) / 10)))
    variants = [image, blurred]
    for heat in heats:
        grown = resized(heat, side_x, side_y, Image.Resampling.BILINEAR).ravel()
        order = np.argsort(-grown, kind="stable")
        for start, goal in ((image, blurred), (blurred, image)):
            for share in _SHARES[1:-1]:
                changed = start.reshape(-1, 3).copy()
                erased = order[: round(share * len(order))]
                changed[erased] = goal.reshape(-1, 3)[erased]
                variants.append(changed.reshape(image.shape))
    scores = np.asarray(score(np.stack(variants)), dtype=np.float64)
    whole, gone = scores[:1], scores[1:2]
    between = scores[2:].reshape(len(heats), 2, _STEPS - 1)
    return [
        Curves(np.concatenate([whole, deleted, gone]), np.concatenate([gone, inserted, whole]))
        for deleted, inserted in between
    ]


def centre_map(side: int) -> np.ndarray:
    """A blob in the middle, where lesions usually are: what a map has to beat to be informative."""
    place = np.linspace(-1.0, 1.0, side)
    return np.exp(-(place[:, None] ** 2 + place[None, :] ** 2) / 0.5).astype(np.float32)


def random_map(side: int, rng: np.random.Generator) -> np.ndarray:
    """Uniform noise on the grid of a map."""
    return rng.random((side, side), dtype=np.float32)
