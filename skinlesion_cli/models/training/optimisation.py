"""Optimiser, learning-rate schedule, averaged weights, and the score that selects the epoch."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from skinlesion_cli.config.schema import Recipe


def make_optimizer(network: nn.Module, recipe: Recipe, *, fused: bool = False) -> torch.optim.Optimizer:
    """Adam or AdamW; no weight decay on norms and biases unless the recipe asks for it.

    With `layer_decay`, groups have an `lr_scale`, by which their learning rate is multiplied. `fused` updates
    all weights in one kernel, whose results differ from the others' by rounding.
    """
    if recipe.layer_decay != 1.0:
        return _optimizer(_groups_by_layer(network, recipe), recipe, fused)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return _optimizer(_by_decay(trained, recipe), recipe, fused)


def _by_decay(parameters: Iterable[nn.Parameter], recipe: Recipe) -> list[dict[str, Any]]:
    """Two groups of parameters: with weight decay, and the norms and biases without."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in parameters:
        is_matrix = parameter.ndim > 1
        (decayed if is_matrix or recipe.decay_norms_and_biases else plain).append(parameter)
    return [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


def _optimizer(groups: list[dict[str, Any]], recipe: Recipe, fused: bool) -> torch.optim.Optimizer:
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    for group in groups:
        group["lr"] = recipe.learning_rate * group.get("lr_scale", 1.0)
    # The fused kernel misreads moments in another memory order than the weights; see `restore_state`.
    trained = [group for group in groups if group["params"]]
    return kinds[recipe.optimizer](trained, lr=recipe.learning_rate, fused=fused or None)


def _groups_by_layer(network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Layer-wise learning rates (Bao et al., 2022, arXiv:2106.08254) by timm's order of the layers; what is
    not of the backbone learns as the classifier does.
    """
    from timm.optim import param_groups_layer_decay

    backbone = network.backbone
    undecayed: set[str] = getattr(backbone, "no_weight_decay", set)()
    groups: list[dict[str, Any]] = param_groups_layer_decay(
        backbone,
        weight_decay=recipe.weight_decay,
        no_weight_decay_list=undecayed,
        weight_decay_exclude_1d=not recipe.decay_norms_and_biases,
        layer_decay=recipe.layer_decay,
    )
    known = {id(parameter) for group in groups for parameter in group["params"]}
    others = [p for p in network.parameters() if p.requires_grad and id(p) not in known]
    return [*groups, *({**group, "lr_scale": 1.0} for group in _by_decay(others, recipe))]


def learning_rate_factor(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Fraction of the peak learning rate at this optimiser step (counted from 0).

    Linear warm-up, then half a cosine down to 0 (Loshchilov and Hutter, 2017, arXiv:1608.03983) or constant.
    """
    warmup_steps = recipe.warmup_epochs * steps_per_epoch
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if recipe.schedule != "cosine":
        return 1.0
    total_steps = recipe.epochs * steps_per_epoch
    progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    return 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


def make_plateau(
    optimizer: torch.optim.Optimizer, recipe: Recipe
) -> torch.optim.lr_scheduler.ReduceLROnPlateau | None:
    """The scheduler that lowers the learning rate when the score stops improving; pass it `-score`.

    As in the published system it minimises the negated score with torch's relative threshold of 1e-4. With
    negative numbers that threshold is a tolerance: a score of up to 0.01 % below the best counts as progress.
    """
    if recipe.schedule != "plateau":
        return None
    return torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="min", factor=recipe.plateau_factor, patience=recipe.plateau_patience_epochs
    )


def selection_score(recipe: Recipe, bacc: float, validation_loss: float) -> float:
    """The score that selects the epoch to keep: BACC, or the published w * BACC + (1 - w) / (1 + loss)."""
    if recipe.selection == "mixed":
        weight = recipe.selection_bacc_weight
        return weight * bacc + (1.0 - weight) / (1.0 + validation_loss)
    return bacc


class WeightAverage:
    """Exponential moving average of weights and buffers (Polyak averaging).

    In the first steps the decay is lowered to (1 + step) / (10 + step), so that the initial weights are soon
    forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def update(self, network: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        averaged, current = self.network.state_dict(), network.state_dict()
        floats = [name for name, tensor in averaged.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([averaged[n] for n in floats], [current[n] for n in floats], 1.0 - decay)
        for name in averaged.keys() - set(floats):
            averaged[name].copy_(current[name])
