"""Mixup and CutMix on a batch, driven by a generator of its own so that a resumed run mixes the same."""

from __future__ import annotations

import numpy as np
import torch


def mix(
    images: torch.Tensor,
    targets: torch.Tensor,
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
    generator: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Blend each image with a partner of its batch, and their targets in the same proportion.

    images : (n, height, width, 3), uint8 or float in [0, 255]; targets : (n, 7). With both alphas above 0 one
    of the two is drawn for the batch. Mixup: Zhang et al., 2018, arXiv:1710.09412. CutMix: Yun et al., 2019,
    arXiv:1905.04899.
    """
    choices = [name for name, alpha in (("mixup", mixup_alpha), ("cutmix", cutmix_alpha)) if alpha > 0]
    if not choices or len(images) < 2:
        return images, targets
    kind = choices[int(generator.integers(len(choices)))]
    partner = torch.from_numpy(generator.permutation(len(images))).to(images.device)
    if kind == "mixup":
        share = float(generator.beta(mixup_alpha, mixup_alpha))
        mixed = images.float() * share + images[partner].float() * (1.0 - share)
    else:
        share = float(generator.beta(cutmix_alpha, cutmix_alpha))
        height, width = images.shape[1:3]
        top, bottom = _span(height, (1.0 - share) ** 0.5, generator)
        left, right = _span(width, (1.0 - share) ** 0.5, generator)
        mixed = images.clone()
        mixed[:, top:bottom, left:right] = images[partner][:, top:bottom, left:right]
        share = 1.0 - (bottom - top) * (right - left) / (height * width)
    return mixed, targets * share + targets[partner] * (1.0 - share)


def _span(length: int, fraction: float, generator: np.random.Generator) -> tuple[int, int]:
    half = round(length * fraction / 2)
    centre = int(generator.integers(length))
    return max(centre - half, 0), min(centre + half, length)
