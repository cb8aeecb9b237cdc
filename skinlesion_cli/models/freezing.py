"""Parts of a network that stop learning: batch norm's statistics, and the first stages.

Once its statistics stand still, batch norm is a scale and an offset of each channel, and can be computed as part of
the convolution before it: on the few numbers of the kernel instead of on every pixel of every feature map. Weights,
scale and offset go on learning; the function and its gradients are those of the two modules one after the other.
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


def hold_still(backbone: nn.Module, first_stages: int) -> None:
    """Hold the statistics of every batch norm, and all weights of this many stages from the stem on.

    `train()` sets the norms going again: call this after it.
    """
    still = {name for stage in _stages(backbone)[:first_stages] for name in stage}
    for name, parameter in backbone.named_parameters():
        if name in still:
            parameter.requires_grad_(False)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def merge_norms(backbone: nn.Module, *, learning: bool) -> int:
    """Compute every batch norm that directly follows a convolution as part of it; returns how many.

    The modules, their parameters and the names in the state stay what they are. To be used where the statistics
    stand still: those at the time of each call count when `learning`, else those of now, with the merged kernels
    made once, on the device where the network is now.
    """
    pairs = _pairs(backbone)
    for conv, norm in pairs:
        convolve = _convolution(conv)
        if learning:
            conv.forward = partial(_merged, convolve, conv, norm)
        else:
            with torch.no_grad():
                weight, bias = _kernel(conv, norm)
            conv.forward = partial(convolve, weight=weight.contiguous(), bias=bias)
        norm.forward = partial(_after, norm)
    return len(pairs)


def _stages(backbone: nn.Module) -> list[list[str]]:
    """Names of the parameters of each stage, in timm's own order."""
    from timm.models import group_parameters

    groups = group_parameters(backbone, backbone.group_matcher(coarse=True))  # type: ignore[operator]
    return [list(groups[index]) for index in sorted(groups)]


class _Tracer(fx.Tracer):
    """Norms of timm bring their activation along: they are looked at as one module, as torch's are."""

    def is_leaf_module(self, module: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(module, nn.BatchNorm2d) or not any(module.children())


def _pairs(backbone: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions whose result goes to one batch norm and nowhere else."""
    from timm.layers import Conv2dSame

    pairs = []
    for node in _Tracer().trace(backbone).nodes:
        source = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
            continue
        conv, norm = backbone.get_submodule(source.target), backbone.get_submodule(node.target)
        if type(conv) in (nn.Conv2d, Conv2dSame) and isinstance(norm, nn.BatchNorm2d):
            pairs.append((conv, norm))
    return pairs


def _kernel(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Kernel and bias that do what the convolution and the norm do one after the other."""
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    offset = -norm.running_mean if conv.bias is None else conv.bias - norm.running_mean
    return conv.weight * scale[:, None, None, None], norm.bias + offset * scale


def _merged(
    convolve: Callable[..., torch.Tensor], conv: nn.Conv2d, norm: nn.BatchNorm2d, x: torch.Tensor
) -> torch.Tensor:
    return convolve(x, *_kernel(conv, norm))


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


def _after(norm: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    """What timm's norms do besides: dropout and activation."""
    for name in ("drop", "act"):
        following = getattr(norm, name, None)
        if following is not None:
            x = following(x)
    return x
