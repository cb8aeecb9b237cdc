"""Losses. All take logits (n, n_classes) and targets: distributions of that shape, or class indexes (n,)."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F


def smooth_targets(labels: torch.Tensor, smoothing: float, n_classes: int) -> torch.Tensor:
    """Targets (n, n_classes): 1 - smoothing on the true class, smoothing / (n_classes - 1) on each other one.

    This is the published system's smoothing; torch's own puts smoothing / n_classes on every class, the true
    one included.
    """
    off = smoothing / (n_classes - 1)
    targets = torch.full((len(labels), n_classes), off, device=labels.device)
    return targets.scatter(1, labels.unsqueeze(1), 1.0 - smoothing)


def training_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    *,
    focal_gamma: float = 0.0,
    class_weights: torch.Tensor | None = None,
    logit_offsets: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean cross entropy against a target distribution, with a focal factor,
    class weights and offsets of the logits.

    The focal factor (1 - p_t) ** gamma (Lin et al., 2017, arXiv:1708.02002) takes p_t at the class with the
    largest target and is not differentiated, as in the published system: it only weights the images. A class
    weight counts by the share that its class has of the target. Both mean the target as given: with offsets,
    most of a smoothed target of a rare class may belong to a frequent one.
    """
    logits, given = logits.float(), targets
    if logit_offsets is not None:
        # Targets describe the network's own logits. Comparing smoothed targets with offset logits unchanged
        # would give every rare class a minimum probability on images of frequent classes.
        logits = logits + logit_offsets
        targets = targets * logit_offsets.exp()
        targets = targets / targets.sum(dim=1, keepdim=True)
    logarithms = F.log_softmax(logits, dim=1)
    losses = -(targets * logarithms).sum(dim=1)
    if focal_gamma:
        true = given.argmax(dim=1, keepdim=True)
        p_true = logarithms.detach().exp().gather(1, true).squeeze(1)
        losses = losses * (1.0 - p_true) ** focal_gamma
    if class_weights is not None:
        losses = losses * (given * class_weights).sum(dim=1)
    return losses.mean()


def class_weights(counts: np.ndarray, power: float, drawn: np.ndarray) -> torch.Tensor | None:
    """count ** -power for each class, float32 (n_classes,), scaled so that the mean over the images that are
    drawn is 1; None for power 0. A class without images gets weight 0.

    Parameters
    ----------
    counts : images of each class, int64 (n_classes,).
    drawn : how often each class is drawn, in any unit, float64 (n_classes,).
    """
    if power == 0.0:
        return None
    raw = np.where(counts > 0, np.maximum(counts, 1.0) ** -power, 0.0)
    return torch.from_numpy(raw * drawn.sum() / (raw * drawn).sum()).float()


def logit_offsets(drawn: np.ndarray, strength: float) -> torch.Tensor | None:
    """strength · log(share of the class among the drawn images), float32 (n_classes,); None for strength 0.

    Class weights lose their effect once the training images are classified correctly; offsets keep a wider
    margin around the rare classes. Source: logit-adjusted cross entropy, Menon et al., 2021
    (arXiv:2007.07314). A class without images is treated as being as rare as the rarest class that has any.

    `drawn` is how often each class is drawn, in any unit, float64 (n_classes,).
    """
    if strength == 0.0:
        return None
    present = drawn > 0
    share = np.where(present, drawn, drawn[present].min()) / drawn.sum()
    return torch.from_numpy(strength * np.log(share)).float()
