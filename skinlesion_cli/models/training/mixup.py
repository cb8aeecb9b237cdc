"""Mixup and CutMix of torchvision on a batch, as a function of a seed,
so that a resumed run mixes the same.
"""

from __future__ import annotations

import torch


def mix(
    images: torch.Tensor, targets: torch.Tensor, *, mixup_alpha: float, cutmix_alpha: float, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Blend each image with its neighbour in the batch, and their targets in the same proportion.

    Mixup: Zhang et al., 2018, arXiv:1710.09412. CutMix: Yun et al., 2019, arXiv:1905.04899.

    Parameters
    ----------
    images : (n, height, width, 3), uint8 or float in [0, 255]; in random order,
        since partners are neighbours.
    targets : float (n, 7), distributions over the classes.
    mixup_alpha, cutmix_alpha : 0 switches a method off; if both are above 0,
        one of the two is drawn for the batch.

    Returns
    -------
    Images of the same shape, float32 after mixup, and targets.
    """
    if max(mixup_alpha, cutmix_alpha) == 0 or len(images) < 2:
        return images, targets
    # torchvision.transforms takes seconds to import, and most recipes do not mix.
    from torchvision.transforms import v2

    # The transforms draw from torch's global generator: seeded here, and left as it was.
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        transforms = [
            make(alpha=alpha)
            for make, alpha in ((v2.MixUp, mixup_alpha), (v2.CutMix, cutmix_alpha))
            if alpha > 0
        ]
        chosen = transforms[int(torch.randint(len(transforms), (1,)))]
        pixels = images.permute(0, 3, 1, 2)
        mixed, blended = chosen(pixels.float() if isinstance(chosen, v2.MixUp) else pixels, targets)
    return mixed.permute(0, 2, 3, 1), blended
