"""One vote a lesion: several photographs of one lesion are no independent evidence.

A lesion is decided right where more than half of its images are. For scores and thresholds that is the
lower median of its images' scores: it is above θ exactly where more than half of the images are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skinlesion_cli.errors import DataError, name_items


@dataclass(frozen=True)
class Lesions:
    """Which images make which lesion.

    `codes` int64 (n_images,) numbers the lesions from 0; `first` (n_lesions,) is one image of each.
    """

    codes: np.ndarray
    first: np.ndarray
    sizes: np.ndarray

    @property
    def n(self) -> int:
        return len(self.sizes)

    def take(self, lesions: np.ndarray) -> np.ndarray:
        """Images of these lesions (bool or numbers), in the order of the images."""
        chosen = np.zeros(self.n, dtype=bool)
        chosen[lesions] = True
        return np.flatnonzero(chosen[self.codes])


def group(lesion_ids: np.ndarray, labels: np.ndarray | None = None) -> Lesions:
    """Group images by lesion.

    Raises
    ------
    DataError : one lesion has images of different classes.
    """
    names, first, codes, sizes = np.unique(
        np.asarray(lesion_ids).astype(str), return_index=True, return_inverse=True, return_counts=True
    )
    codes = codes.reshape(-1)
    if labels is not None and len(codes):
        differing = np.unique(codes[np.asarray(labels) != np.asarray(labels)[first][codes]])
        if differing.size:
            raise DataError(f"these lesions have images of different classes: {name_items(names[differing])}")
    return Lesions(codes.astype(np.int64), first, sizes)


def votes(scores: np.ndarray, codes: np.ndarray, *, upper: bool = False) -> np.ndarray:
    """The lower median (or the upper one) of every lesion's scores: shape (n_lesions among `codes`,).

    Lower: above θ where more than half of the images are. Upper: above θ where at least half are.
    """
    if len(scores) == 0:
        return np.empty(0)
    order = np.lexsort((scores, codes))
    starts = np.flatnonzero(np.r_[True, np.diff(codes[order]) != 0])
    counts = np.diff(np.r_[starts, len(order)])
    result: np.ndarray = np.asarray(scores)[order][starts + (counts // 2 if upper else (counts - 1) // 2)]
    return result
