"""Mixup and CutMix of torchvision on a batch, as a function of a seed,
so that a resumed run mixes the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def mix(
    images: torch.Tensor,
    targets: torch.Tensor,
    metadata: Sequence[torch.Tensor] = (),
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
    seed: int,
) -> tuple[torch.Tensor, ...]:
    """Blend each image with its neighbour in the batch, and targets and metadata in the same proportion.

    Mixup: Zhang et al., 2018, arXiv:1710.09412. CutMix: Yun et al., 2019, arXiv:1905.04899.

    Parameters
    ----------
    images : (n, height, width, 3), uint8 or float in [0, 255]; in random order,
        since partners are neighbours.
    targets : float (n, n_classes), distributions over the classes.
    metadata : float (n, n_columns) each, none or one of them.
    mixup_alpha, cutmix_alpha : 0 switches a method off; if both are above 0,
        one of the two is drawn for the batch.

    Returns
    -------
    Images of the same shape, float32 after mixup, targets and metadata.
    """
    if max(mixup_alpha, cutmix_alpha) == 0 or len(images) < 2:
        return images, targets, *metadata
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
        # Labels that are distributions are blended as they are: metadata is blended as more of their columns.
        labels = torch.cat([targets, *metadata], dim=1)
        mixed, blended = chosen(pixels.float() if isinstance(chosen, v2.MixUp) else pixels, labels)
    widths = [targets.shape[1], *(values.shape[1] for values in metadata)]
    return mixed.permute(0, 2, 3, 1), *blended.split(widths, dim=1)
