"""Bootstrap clustered by lesion: whole lesions are drawn again, within their class.

Almost every figure is a function of sums over images. So the sums are taken once a lesion, and one matrix
product gives them for all resamples; only the ranking figures (AUC, average precision) look at images again.
Drawing within the class keeps every class's support, so that no resample loses a rare class.
Source: Davison & Hinkley, 1997, 3.2 and 3.8.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from skinlesion_cli.decisions.lesions import Lesions

_CHUNK = 100


@dataclass(frozen=True)
class Resamples:
    """How to draw: the same seed, lesions and labels give the same draws, so that two models can be paired."""

    lesions: Lesions
    lesion_labels: np.ndarray
    n_resamples: int = 2000
    seed: int = 0

    def weights(self) -> Iterator[np.ndarray]:
        """How often each lesion was drawn: float32 chunks of shape (<= 100, n_lesions)."""
        generator = np.random.default_rng(self.seed)
        members = [np.flatnonzero(self.lesion_labels == label) for label in np.unique(self.lesion_labels)]
        for start in range(0, self.n_resamples, _CHUNK):
            size = min(_CHUNK, self.n_resamples - start)
            drawn = np.zeros((size, self.lesions.n), dtype=np.float32)
            for mine in members:
                n = len(mine)
                picks = generator.integers(0, n, size=(size, n), dtype=np.int32)
                flat = (picks + np.arange(size, dtype=np.int64)[:, None] * n).ravel()
                drawn[:, mine] = np.bincount(flat, minlength=size * n).reshape(size, n)
            yield drawn


def lesion_sums(values: np.ndarray, lesions: Lesions) -> np.ndarray:
    """Sums of image values (n_images, k) over each lesion: float32 (n_lesions, k)."""
    order = np.argsort(lesions.codes, kind="stable")
    starts = np.r_[0, np.cumsum(lesions.sizes)[:-1]]
    return np.add.reduceat(values[order].astype(np.float64), starts, axis=0).astype(np.float32)


@dataclass(frozen=True)
class Ranking:
    """Images in descending order of one score, for AUC and average precision under any weights."""

    lesion_of: np.ndarray  # lesion of each image, in that order
    positive: np.ndarray
    ends: np.ndarray  # last image of every run of equal scores

    @classmethod
    def of(cls, scores: np.ndarray, positive: np.ndarray, lesions: Lesions) -> Ranking:
        order = np.argsort(-scores, kind="stable")
        ordered = scores[order]
        ends = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])
        return cls(lesions.codes[order], positive[order], ends)

    def figures(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """AUC and average precision for each row of `weights` (b, n_lesions); NaN without both sides.

        AUC counts ties half (Mann & Whitney, 1947); average precision is the sum over thresholds of the gain
        in recall times the precision, as in scikit-learn.
        """
        drawn = weights[:, self.lesion_of]
        hits = np.cumsum(drawn * self.positive.astype(np.float32), axis=1, dtype=np.float32)[:, self.ends]
        every = np.cumsum(drawn, axis=1, dtype=np.float32)[:, self.ends]
        # Sums of counts stay exact in float32 up to 2^24; products of them do not.
        n_hits = hits[:, -1].astype(np.float64)
        n_false = every[:, -1].astype(np.float64) - n_hits
        gained = np.diff(hits, axis=1, prepend=np.float32(0))
        false = np.diff(every - hits, axis=1, prepend=np.float32(0))
        area = np.einsum("bi,bi->b", false, hits - gained / 2, dtype=np.float64)
        precision = np.divide(hits, every, out=np.zeros_like(hits), where=every > 0)
        average = np.einsum("bi,bi->b", gained, precision, dtype=np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            auc = area / (n_hits * n_false)
            ap = average / n_hits
        # One side alone ranks nothing.
        defined = (n_hits > 0) & (n_false > 0)
        return np.where(defined, auc, np.nan), np.where(defined, ap, np.nan)
