"""A network's outputs on batches of validation images."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import nn


def predict_batches(
    network: nn.Module, batches: Iterable[tuple[torch.Tensor, ...]], device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Labels, int64 (n,), and logits, float32 (n, n_classes), of all images.

    Parameters
    ----------
    network : in evaluation mode, on `device`.
    batches : uint8 images (b, s, s, 3), labels int64 (b,) and, if the network uses it,
        metadata float32 (b, k).
    """
    labels, logits = [], []
    with torch.inference_mode():
        for images, batch_labels, *metadata in batches:
            outputs = network(images.to(device), *(values.to(device) for values in metadata))
            logits.append(outputs.float().cpu().numpy())
            labels.append(batch_labels.numpy())
    return np.concatenate(labels), np.concatenate(logits)
