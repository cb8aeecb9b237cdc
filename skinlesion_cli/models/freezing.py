"""Freezing parts of a network: the statistics of batch norm, and the first stages.

With frozen statistics, batch norm is a scale and an offset per channel and can be computed as part of the
preceding convolution: on the few numbers of the kernel instead of on every pixel of every feature map.
Weights, scale and offset keep learning; the function and its gradients are those
of the two modules applied one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import fx, nn
from torch.nn import functional as F


def n_stages(backbone: nn.Module) -> int:
    """Stages of a timm network: the stem, its groups of blocks, and the head."""
    return len(_stages(backbone))


def freeze_norms_and_stages(backbone: nn.Module, first_stages: int) -> None:
    """Freeze the statistics of every batch norm, and all weights of the first stages, counted from the stem.

    `train()` unfreezes the statistics: call this after it.
    """
    frozen_names = {name for stage in _stages(backbone)[:first_stages] for name in stage}
    for name, parameter in backbone.named_parameters():
        if name in frozen_names:
            parameter.requires_grad_(False)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def merge_norms(backbone: nn.Module, *, learning: bool) -> int:
    """Compute every batch norm that directly follows a convolution as part of it; returns their number.

    Modules, parameters and the names in the state stay the same. Valid only with frozen statistics. When
    `learning`, the merged kernels are computed from the current weights in each call; otherwise once, from
    the present weights and on the present device.
    """
    pairs = _pairs(backbone)
    for conv, norm in pairs:
        convolve = _convolution(conv)
        if learning:
            conv.forward = partial(_merged, convolve, conv, norm)
        else:
            with torch.no_grad():
                weight, bias = merged_kernel(conv, norm)
            conv.forward = partial(convolve, weight=weight.contiguous(), bias=bias)
        norm.forward = partial(after_norm, norm)
    return len(pairs)


def _stages(backbone: nn.Module) -> list[list[str]]:
    """Names of the parameters of each stage, in timm's order."""
    from timm.models import group_parameters

    groups = group_parameters(backbone, backbone.group_matcher(coarse=True))
    return [list(groups[index]) for index in sorted(groups)]


class _Tracer(fx.Tracer):  # type: ignore[misc]
    """timm's norms include their activation; each is traced as a single module, as torch's norms are."""

    def is_leaf_module(self, module: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(module, nn.BatchNorm2d) or not any(module.children())


def _pairs(backbone: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions whose output is used by one batch norm and by nothing else."""
    from timm.layers import Conv2dSame

    if not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules()):
        return []  # transformers, which cannot be traced either
    pairs = []
    for node in _Tracer().trace(backbone).nodes:
        source = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
            continue
        conv, norm = backbone.get_submodule(source.target), backbone.get_submodule(node.target)
        if type(conv) in (nn.Conv2d, Conv2dSame) and isinstance(norm, nn.BatchNorm2d):
            pairs.append((conv, norm))
    return pairs


def merged_kernel(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Kernel and bias of the convolution equivalent to the convolution followed by the norm."""
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    offset = -norm.running_mean if conv.bias is None else conv.bias - norm.running_mean
    return conv.weight * scale[:, None, None, None], norm.bias + offset * scale


def _merged(
    convolve: Callable[..., torch.Tensor], conv: nn.Conv2d, norm: nn.BatchNorm2d, x: torch.Tensor
) -> torch.Tensor:
    return convolve(x, *merged_kernel(conv, norm))


def _convolution(conv: nn.Conv2d) -> Callable[..., torch.Tensor]:
    """The convolution as a function of pixels, kernel and bias."""
    from timm.layers import Conv2dSame, pad_same

    same = isinstance(conv, Conv2dSame)
    padding = (0, 0) if same else conv.padding

    def convolve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        if same:
            x = pad_same(x, conv.kernel_size, conv.stride, conv.dilation)
        return F.conv2d(x, weight, bias, conv.stride, padding, conv.dilation, conv.groups)

    return convolve


def after_norm(norm: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    """The dropout and activation that timm's norms include."""
    for name in ("drop", "act"):
        following = getattr(norm, name, None)
        if following is not None:
            x = following(x)
    return x
