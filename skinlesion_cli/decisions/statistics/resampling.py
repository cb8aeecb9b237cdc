"""Bootstrap clustered by lesion: whole lesions are drawn again, within their class or from all of them.

Almost every figure is a function of sums over images. So the sums are taken once a lesion, and one matrix
product gives them for all resamples; only the ranking figures (AUC, average precision) look at images again.
Drawing within the class keeps every class's support, so that no resample loses a rare class: right for what
is a share of one class. What depends on how common the classes are, such as a predictive value, needs draws
from all lesions, or its interval is far too narrow.
Source: Davison & Hinkley, 1997, 3.2 and 3.8.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from skinlesion_cli.decisions.statistics.lesions import Lesions

_CHUNK = 100


@dataclass(frozen=True)
class Resamples:
    """How to draw: the same seed, lesions and labels give the same draws, so that two models can be paired.

    `lesion_labels` : draw within these classes; None: from all lesions.
    """

    lesions: Lesions
    lesion_labels: np.ndarray | None
    n_resamples: int = 2000
    seed: int = 0

    def weights(self) -> Iterator[np.ndarray]:
        """How often each lesion was drawn: float32 chunks of shape (<= 100, n_lesions)."""
        generator = np.random.default_rng(self.seed)
        labels = np.zeros(self.lesions.n) if self.lesion_labels is None else self.lesion_labels
        members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
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
    """Images in descending order of one score, for AUC and average precision under any weights.

    Rows are images and columns resamples, so that running sums go down whole rows at once; only the rows of
    positives are looked at after that. A run is a stretch of equal scores.
    """

    lesion_of: np.ndarray  # lesion of each image, in that order
    positives: np.ndarray  # rows of the positives
    run_end: np.ndarray  # for each positive, the last row of its run
    run_start: np.ndarray  # and the last row before its run, -1 where there is none
    hits_end: np.ndarray  # for each positive, the last positive of its run, by number among the positives
    hits_start: np.ndarray  # and the last positive before its run, -1 where there is none

    @classmethod
    def of(cls, scores: np.ndarray, positive: np.ndarray, lesions: Lesions) -> Ranking:
        order = np.argsort(-scores, kind="stable")
        ordered = -scores[order]
        positives = np.flatnonzero(positive[order])
        run_end = np.searchsorted(ordered, ordered[positives], side="right") - 1
        run_start = np.searchsorted(ordered, ordered[positives], side="left") - 1
        hits_end = np.searchsorted(positives, run_end, side="right") - 1
        hits_start = np.searchsorted(positives, run_start, side="right") - 1
        return cls(lesions.codes[order], positives, run_end, run_start, hits_end, hits_start)

    def figures(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """AUC and average precision for each row of `weights` (b, n_lesions); NaN without both sides.

        AUC counts ties half (Mann & Whitney, 1947); average precision is the sum over thresholds of the gain
        in recall times the precision, as in scikit-learn.
        """
        drawn = np.ascontiguousarray(weights.T)[self.lesion_of]
        mine = drawn[self.positives]
        # Row 0 is "nothing yet", so that -1 + 1 finds it. Sums of counts are exact in float32 up to 2^24.
        every = _running_sums(drawn)
        hits = _running_sums(mine)
        n_hits = hits[-1].astype(np.float64)
        n_false = every[-1].astype(np.float64) - n_hits
        above, caught = every[self.run_end + 1], hits[self.hits_end + 1]
        false = above - caught
        false += every[self.run_start + 1] - hits[self.hits_start + 1]
        # (false above the run + false down to its end) / 2: ties count half.
        area = n_hits * n_false - np.einsum("ib,ib->b", mine, false, dtype=np.float64) / 2
        precision = np.divide(caught, above, out=np.zeros_like(caught), where=above > 0)
        average = np.einsum("ib,ib->b", mine, precision, dtype=np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            auc = area / (n_hits * n_false)
            ap = average / n_hits
        # One side alone ranks nothing.
        defined = (n_hits > 0) & (n_false > 0)
        return np.where(defined, auc, np.nan), np.where(defined, ap, np.nan)


def _running_sums(rows: np.ndarray) -> np.ndarray:
    sums = np.zeros((len(rows) + 1, rows.shape[1]), dtype=np.float32)
    np.cumsum(rows, axis=0, out=sums[1:])
    return sums
