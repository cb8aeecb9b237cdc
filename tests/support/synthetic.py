"""Made-up predictions with lesions of several images, for tests of what holds on average."""

from __future__ import annotations

import numpy as np

from tests.support.class_lists import ISIC2018

PREVALENCE = np.array([0.10, 0.68, 0.05, 0.05, 0.09, 0.015, 0.015])


def predictions(
    n_lesions: int, seed: int, strength: float = 3.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels (n,), probabilities (n, 7) and lesion ids (n,): images of a lesion are alike."""
    generator = np.random.default_rng(seed)
    classes = generator.choice(ISIC2018.n_classes, size=n_lesions, p=PREVALENCE)
    lesion = np.repeat(np.arange(n_lesions), generator.choice([1, 2, 3], size=n_lesions, p=[0.75, 0.2, 0.05]))
    labels = classes[lesion]
    logits = (
        np.eye(ISIC2018.n_classes)[labels] * strength
        + generator.normal(0, 1.0, (n_lesions, ISIC2018.n_classes))[lesion]
    )
    logits += generator.normal(0, 0.6, logits.shape) + np.log(PREVALENCE) * 0.6
    raised = np.exp(1.3 * logits - (1.3 * logits).max(axis=1, keepdims=True))
    values = (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)
    return labels, values, np.array([f"L{number:05d}" for number in lesion], dtype=object)
