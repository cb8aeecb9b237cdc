"""Which labelled lesions look alike to a network: neighbours by its pooled features, in a compact table.

Every lesion is one row, the mean of its photographs. Features are scaled to unit length, projected onto their
leading principal components, and kept as one signed byte each, so that thousands of lesions take some hundred
kilobytes. The lesions are those that the network was not trained on: it has learnt the labels of the others,
which would then lie beside an image because of the label, and only repeat what the network decided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skinlesion_cli.decisions.quality_gate import unit_rows
from skinlesion_cli.errors import DataError
from skinlesion_cli.taxonomy import ClassList

N_COMPONENTS = 64
# Neighbours whose labels are counted.
N_COUNTED = 20
FEWEST_LESIONS = 30
_LARGEST_CODE = 127


@dataclass(frozen=True)
class CaseTable:
    """Labelled lesions by their features.

    Attributes
    ----------
    network : name of the network that makes the features.
    mean : float32 (n_features,). components : float32 (n_components, n_features), orthonormal rows.
    steps : float32 (n_components,), what one unit of a code stands for.
    codes : int8 (n_lesions, n_components). labels : uint8 (n_lesions,), indexes of classes.
    """

    network: str
    mean: np.ndarray
    components: np.ndarray
    steps: np.ndarray
    codes: np.ndarray
    labels: np.ndarray

    @property
    def n_lesions(self) -> int:
        return len(self.labels)

    def nearest(self, features: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The nearest lesions of images with these pooled features, (n_images, n_features).

        Returns
        -------
        Rows of the table, int64 (n_images, k), nearest first, and their distances, float64 (n_images, k):
        of unit-length features within the components, 0 to 2. k is `count`, or all lesions if fewer.
        """
        places = self._project(features)
        lesions = self.codes.astype(np.float64) * self.steps
        squared = (places**2).sum(axis=1)[:, None] + (lesions**2).sum(axis=1)[None] - 2.0 * places @ lesions.T
        distances = np.sqrt(np.maximum(squared, 0.0))
        order = np.argsort(distances, axis=1, kind="stable")[:, :count]
        return order, np.take_along_axis(distances, order, axis=1)

    def _project(self, features: np.ndarray) -> np.ndarray:
        result: np.ndarray = (unit_rows(features) - self.mean) @ self.components.T.astype(np.float64)
        return result

    def agreement(self, classes: ClassList, count: int = N_COUNTED) -> dict[str, float | None]:
        """Of the lesions nearest to a lesion of a class, itself left out, the mean share of the same class;
        None for a class without lesions.
        """
        lesions = self.codes.astype(np.float64) * self.steps
        squared = (lesions**2).sum(axis=1)
        distances = squared[:, None] + squared[None] - 2.0 * lesions @ lesions.T
        np.fill_diagonal(distances, np.inf)
        order = np.argsort(distances, axis=1, kind="stable")[:, : min(count, self.n_lesions - 1)]
        same = (self.labels[order] == self.labels[:, None]).mean(axis=1)
        return {
            name: float(same[self.labels == index].mean()) if (self.labels == index).any() else None
            for index, name in enumerate(classes.codes)
        }


@dataclass(frozen=True)
class FittedCases:
    """`table` has one row per lesion, in the order of `lesion_ids`; `images` is the photograph of each lesion
    that lies nearest to its mean, as a row of what was fitted."""

    table: CaseTable
    lesion_ids: tuple[str, ...]
    images: np.ndarray


def fit_cases(
    network: str,
    features: np.ndarray,
    labels: np.ndarray,
    lesion_ids: Sequence[str],
    n_classes: int,
    n_components: int = N_COMPONENTS,
) -> FittedCases:
    """Make the table of photographs that the network was not trained on.

    Parameters
    ----------
    features : pooled, (n_images, n_features). labels : int64 (n_images,). lesion_ids : n_images texts.

    Raises
    ------
    DataError : fewer than 30 lesions, or one with two labels.
    """
    names, first, lesion_of = np.unique(np.asarray(lesion_ids), return_index=True, return_inverse=True)
    if len(names) < FEWEST_LESIONS:
        raise DataError(f"similar cases need at least {FEWEST_LESIONS} lesions, there are {len(names)}")
    values = np.asarray(labels)
    if (values != values[first][lesion_of]).any() or (values < 0).any() or (values >= n_classes).any():
        raise DataError("a lesion has two labels, or one that is no class")
    rows = unit_rows(features)
    sizes = np.bincount(lesion_of)
    means = np.zeros((len(names), rows.shape[1]))
    np.add.at(means, lesion_of, rows)
    means /= sizes[:, None]
    mean = means.mean(axis=0)
    _, _, directions = np.linalg.svd(means - mean, full_matrices=False)
    components = directions[: min(n_components, len(names) - 1, rows.shape[1])]
    # As they are kept on disk.
    components = components.astype(np.float16).astype(np.float32)
    places = (means - mean) @ components.T.astype(np.float64)
    steps = np.maximum(np.abs(places).max(axis=0), 1e-12) / _LARGEST_CODE
    codes = np.rint(places / steps).astype(np.int8)
    table = CaseTable(
        network,
        mean.astype(np.float32),
        components,
        steps.astype(np.float32),
        codes,
        values[first].astype(np.uint8),
    )
    away = ((rows - means[lesion_of]) ** 2).sum(axis=1)
    # The first of each lesion, once sorted by lesion and then by distance.
    order = np.lexsort((away, lesion_of))
    images = order[np.r_[0, np.cumsum(sizes)[:-1]]]
    return FittedCases(table, tuple(map(str, names)), images)


def label_counts(labels: np.ndarray, classes: ClassList) -> dict[str, int]:
    """How often each class is among some labels, the most frequent first.

    >>> from skinlesion_cli.taxonomy import shipped
    >>> label_counts(np.array([1, 1, 0, 4, 1]), shipped("isic2018"))
    {'NV': 3, 'MEL': 1, 'BKL': 1}
    """
    counts = Counter(classes.codes[label] for label in labels)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], classes.index[item[0]])))
