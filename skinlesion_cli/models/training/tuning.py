"""Which weights of a network are trained: all of them, the last layer, or low-rank adapters.

Adapters (LoRA; Hu et al., 2021, arXiv:2106.09685) are those of peft, in every linear layer of the backbone.
They are merged into the weights when the training ends, so that the stored network is an ordinary one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from skinlesion_cli.config.schema import Recipe
from skinlesion_cli.errors import UsageError, name_items
from skinlesion_cli.models.network import LesionNet

# Adapters are added with this multiple of their own size: twice the rank, as peft's examples do.
_SCALE = 2.0


@dataclass(frozen=True)
class Tuning:
    """How a network is trained. `note` says what is left out, empty where nothing is."""

    recipe: Recipe
    adapters: Any = None
    note: str = ""

    @classmethod
    def prepare(cls, network: LesionNet, recipe: Recipe, seed: int) -> Tuning:
        """Freeze what is not trained and add the adapters, which change nothing at first.

        The network must have its initial weights already.

        Raises
        ------
        UsageError : peft is not installed, or the backbone has no linear layers for adapters.
        """
        if recipe.tune == "full":
            return cls(recipe)
        classifier = network.classifier
        adapters, note = None, ""
        if recipe.tune == "lora":
            adapters, note = _with_adapters(network, recipe, seed)
        else:
            network.backbone.requires_grad_(False)
        classifier.requires_grad_(True)
        return cls(recipe, adapters, note)

    def set_training_mode(self, network: nn.Module) -> None:
        """As `network.train()`; what is frozen keeps its running statistics, and drops nothing."""
        network.train()
        if self.recipe.tune == "last":
            network.backbone.eval()
        elif self.recipe.tune == "lora":
            for module in network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def merge(self) -> None:
        """Merge the adapters into the weights, whose names are then again those of the network without."""
        if self.adapters is not None:
            self.adapters.merge_and_unload()


def _with_adapters(network: LesionNet, recipe: Recipe, seed: int) -> tuple[Any, str]:
    try:
        from peft import LoraConfig, LoraModel
    except ImportError:
        raise UsageError("peft is not installed", "Run `pip install 'skinlesion[lora]'`.") from None
    linear, called = _linear_layers(network)
    if not called:
        raise UsageError(
            f"{network.spec.name} has no linear layers before its classifier, which --tune lora adapts",
            "Use --tune full, or --tune last.",
        )
    config = LoraConfig(
        r=recipe.lora_rank, lora_alpha=int(_SCALE * recipe.lora_rank), target_modules=called, lora_dropout=0.0
    )
    torch.manual_seed(seed)
    adapters = LoraModel(network.backbone, config, "default")
    others = [name for name in linear if name not in called]
    return adapters, f"without adapters, since their weights are used directly: {name_items(others)}" * bool(
        others
    )


def _linear_layers(network: LesionNet) -> tuple[list[str], list[str]]:
    """Names of the backbone's linear layers besides the classifier, and of those that are called as layers.

    Some networks compute with the weight of a linear layer instead: an adapter around it would do nothing.
    """
    backbone, classifier = network.backbone, network.classifier
    linear = {
        name: module
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear) and module is not classifier
    }
    called: set[str] = set()
    hooks = [
        module.register_forward_hook(lambda *_, name=name: called.add(name))
        for name, module in linear.items()
    ]
    was_training = network.training
    try:
        size_px = network.input_size_px
        with torch.no_grad():
            network.eval()(torch.zeros((1, size_px, size_px, 3), device=network.mean.device))
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return list(linear), [name for name in linear if name in called]
