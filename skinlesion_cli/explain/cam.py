"""Class activation maps: which places spoke for a class.

For a network that ends in global average pooling and one linear layer, Grad-CAM (Selvaraju et al., 2017,
arXiv:1610.02391) of the last features needs no backward pass: the gradient of logit k with respect to
feature map c is w_kc / (h w) everywhere, so the map is ReLU(sum_c w_kc A_c) / (h w).
"""

from __future__ import annotations

import numpy as np


def class_maps(features: np.ndarray, classifier: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Grad-CAM of one class an image, not rescaled.

    Parameters
    ----------
    features : float32 (n, n_features, h, w), what global pooling sees.
    classifier : float32 (7, n_features), weight of the last layer.
    classes : int64 (n,), the class to explain of each image.

    Returns
    -------
    float32 (n, h, w), >= 0; in units of the logit: its sum over a map is the positive part of what places
    contribute to the class's logit.
    """
    height, width = features.shape[-2:]
    weighted = np.einsum("nchw,nc->nhw", features, classifier[classes], optimize=True)
    return np.maximum(weighted, 0.0) / (height * width)
