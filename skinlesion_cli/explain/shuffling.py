"""A network whose parameters were shuffled, from its end towards its beginning."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any


def n_shuffles(network: Any) -> int:
    """How many networks `cascading` yields."""
    return len(_children(network))


def cascading(network: Any, seed: int) -> Iterator[tuple[str, Any]]:
    """Copies of a `LesionNet` with ever more of it shuffled: first its last layer, in the end all of it.

    Yields the name of the child of the backbone that was shuffled last, and the network. Every tensor of
    parameters is shuffled within itself, so that its scale, and with it the activations' scale, stays about
    the same (the cascading test of Adebayo et al., 2018, arXiv:1810.03292).
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    shuffled = copy.deepcopy(network)
    for name, child in reversed(_children(shuffled)):
        with torch.no_grad():
            for tensor in child.parameters():
                order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
                tensor.copy_(tensor.flatten()[order].view_as(tensor))
        yield name, shuffled


def _children(network: Any) -> list[tuple[str, Any]]:
    """Name and module of the backbone's children that have parameters."""
    return [pair for pair in network.backbone.named_children() if any(True for _ in pair[1].parameters())]
