"""A network whose last features are twice as fine, with the weights that it was trained with.

The last reduction is left out and every later kernel is spread by as much ("a trous"; Yu et al., 2017, dilated
residual networks, arXiv:1705.09914). Every second place of the result is a place of the trained network's own
features, computed from the same pixels by the same weights; those between are what it would give for the image
moved by half a place.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


def dilated(backbone: Any, size_px: int) -> Any:
    """A copy of a timm backbone that shares its weights and whose `forward_features` gives (n, c, 2 h, 2 w)
    where the backbone gives (n, c, h, w).

    Parameters
    ----------
    backbone : takes (n, 3, size_px, size_px).

    Raises
    ------
    ValueError : its last reduction is none that can be left out, such as that of a transformer.
    """
    shared = {id(tensor): tensor for tensor in (*backbone.parameters(), *backbone.buffers())}
    finer = copy.deepcopy(backbone, memo=shared)
    device = next(backbone.parameters()).device
    pixels = torch.zeros((1, 3, size_px, size_px), device=device)
    sides, before = _sides(finer, pixels)
    last = [module for module, (given, made) in sides.items() if made == before and given > made]
    later = [module for module, (given, _) in sides.items() if given == before]
    for module in last:
        _without_stride(finer, module)
    for module in later:
        _spread(module)
    after = _sides(finer, pixels)[1]
    if after != 2 * before:
        raise ValueError(f"the last features would be {after} places a side instead of {2 * before}")
    return finer


def _sides(backbone: Any, pixels: torch.Tensor) -> tuple[dict[Any, tuple[int, int]], int]:
    """Height of what every convolution and pool gets and gives, and that of the last features."""
    sides: dict[Any, tuple[int, int]] = {}

    def record(module: Any, given: Any, made: torch.Tensor) -> None:
        sides[module] = given[0].shape[-2], made.shape[-2]

    kinds = (nn.Conv2d, nn.AvgPool2d, nn.MaxPool2d)
    hooks = [m.register_forward_hook(record) for m in backbone.modules() if isinstance(m, kinds)]
    training = backbone.training
    try:
        with torch.no_grad():
            features = backbone.eval().forward_features(pixels)
    finally:
        backbone.train(training)
        for hook in hooks:
            hook.remove()
    if features.dim() != 4 or features.shape[-1] != features.shape[-2]:
        raise ValueError("its last features are no square map")
    return sides, features.shape[-2]


def _without_stride(backbone: Any, module: Any) -> None:
    if isinstance(module, nn.Conv2d):
        module.stride = (1, 1)
        return
    if not isinstance(module, nn.AvgPool2d) or _pair(module.kernel_size) != (2, 2):
        raise ValueError(f"its last reduction is a {type(module).__name__}")
    name = next(name for name, candidate in backbone.named_modules() if candidate is module)
    parent, _, own = name.rpartition(".")
    # One more row and column, so that the last place has a window too.
    pool = nn.Sequential(nn.ReplicationPad2d((0, 1, 0, 1)), nn.AvgPool2d(2, stride=1))
    setattr(backbone.get_submodule(parent), own, pool)


def _spread(module: Any) -> None:
    if max(_pair(module.kernel_size)) == 1:
        return
    if not isinstance(module, nn.Conv2d) or isinstance(module.padding, str):
        raise ValueError(f"a {type(module).__name__} of its last stage cannot be spread")
    module.dilation = tuple(2 * step for step in module.dilation)
    module.padding = tuple(2 * width for width in module.padding)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)
