"""Two ways to decide on the same images, compared lesion by lesion."""

from __future__ import annotations

import numpy as np

from skinlesion_cli.decisions.evaluation.figures import Estimate, Figures, Labelled, evaluate
from skinlesion_cli.taxonomy import ClassList


def bacc_difference(
    labels: np.ndarray,
    lesion_ids: np.ndarray,
    decided: np.ndarray,
    other: np.ndarray,
    classes: ClassList,
    n_resamples: int = 1000,
) -> Estimate:
    """Balanced accuracy of `decided` minus that of `other`, with the paired 95 % interval by lesion."""

    def figures(of: np.ndarray) -> Figures:
        rows = np.eye(classes.n_classes)[of]
        data = Labelled(labels, rows, of, lesion_ids, classes)
        return evaluate(data, n_resamples=n_resamples, ranking=False)

    return figures(decided).difference(figures(other), "bacc")
