"""Fitting the class of the best balanced accuracy, apart from how probable it is.

The most probable class is rarely a rare one. Where every class is to be recognised alike, each class's
calibrated probability is weighed against how often the class occurs: the class decided is the argmax of log p
+ offset.
"""

from __future__ import annotations

import numpy as np

from skinlesion_cli.decisions.calibration import log_probabilities
from skinlesion_cli.decisions.probability_fit import least_log_loss


def fit_class_offsets(labels: np.ndarray, calibrated: np.ndarray) -> tuple[float, ...]:
    """One offset per class, from a balanced temperature and biases, fitted with every class weighing alike.

    Minimises the log loss of softmax(a · log p + b) with weights n / (n_classes n_class); the offsets are b
    / a, so that the argmax is the same. It starts from, and is pulled towards, b = -log(share of the class):
    the Bayes rule for balanced accuracy where probabilities are calibrated (prior correction; Saerens et al.,
    2002). A class without images keeps the mean offset of the others.

    Parameters
    ----------
    labels : int64 (n_images,). calibrated : (n_images, n_classes).
    """
    n_classes = np.shape(calibrated)[1]
    counts = np.bincount(labels, minlength=n_classes)
    present = counts > 0
    prior = np.zeros(n_classes)
    prior[present] = -np.log(counts[present] / len(labels))
    prior[present] -= prior[present].mean()
    logits = log_probabilities(calibrated)
    best = least_log_loss(
        labels,
        start=np.r_[1.0, prior],
        design=lambda parameters: logits * parameters[0] + parameters[1:],
        gradient=lambda error: np.r_[(error * logits).sum(), error.sum(axis=0)],
        weights=(len(labels) / present.sum() / np.maximum(counts, 1))[labels],
    )
    offsets = best[1:] / max(best[0], 1e-3)
    offsets[~present] = 0.0
    offsets[present] -= offsets[present].mean()
    return tuple(offsets.tolist())
