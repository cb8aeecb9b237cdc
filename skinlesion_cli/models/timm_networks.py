"""Any network of timm by name (`timm:convnext_tiny.in12k_ft_in1k`): its spec, and its last feature map.

Class activation maps, the quality gate and the search for similar cases need features whose mean over the
image feeds one linear layer. Most networks of timm have them; of the others this module makes them, so that
every runtime gives the same maps:

- transformers give tokens or channels-last maps, which are arranged as (n, n_features, h, w). Vision
  transformers classify by the mean of their patch tokens instead of by the class token.
- a norm, or a 1 x 1 convolution with an activation, between pooling and classifier is applied to the map with
  the scale that it has on the pooled features. That is exact: the mean over the image is what the classifier
  sees. For a piecewise linear activation the map is Grad-CAM.
"""

from __future__ import annotations

import difflib
from functools import cache
from typing import Any

import torch
from timm.models.mobilenetv3 import MobileNetV3
from torch import nn
from torch.nn import functional as F

from skinlesion_cli.errors import UsageError
from skinlesion_cli.models.backbones import STORED_PREFIX, TIMM_PREFIX, BackboneSpec, interpolation_of
from skinlesion_cli.models.freezing import after_norm, merged_kernel


@cache
def timm_spec(arch: str) -> BackboneSpec:
    """The spec of `timm:NAME`, or `timm-NAME` as it is stored; mean, std and interpolation are those of
    `pretrained_cfg`.

    Raises
    ------
    UsageError : timm has no network with this name; the most similar names are suggested.
    """
    import timm
    from timm.models import get_pretrained_cfg

    name = arch[len(TIMM_PREFIX) :]
    base, _, tag = name.partition(".")
    if not timm.is_model(base) or (tag and name not in timm.list_pretrained()):
        known = timm.list_pretrained(f"{base}.*") or [*timm.list_pretrained(), *timm.list_models()]
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        suggestion = "; did you mean " + " or ".join(f"timm:{each}" for each in close) + "?" if close else ""
        raise UsageError(
            f"timm has no network named {name!r}{suggestion}",
            'All names: python -c "import timm; print(*timm.list_pretrained(), sep=chr(10))"',
        )
    config = get_pretrained_cfg(name)
    if isinstance(config.classifier, tuple | list):
        raise UsageError(f"{name} has several classifiers", "Choose a network with one linear classifier.")
    return BackboneSpec(
        name=f"{STORED_PREFIX}{name}",
        timm_name=name,
        cam_layer="",
        hub_id=config.hf_hub_id if tag else None,
        mean=config.mean,
        std=config.std,
        interpolation=interpolation_of(config.interpolation),
        note=f"pretrained at {config.input_size[-1]} px" if tag else "no pretrained weights",
        pretrained_px=int(config.input_size[-1]) if tag else None,
        fixed_size=bool(config.fixed_input_size),
    )


def create(spec: BackboneSpec, size_px: int, n_classes: int, **options: Any) -> nn.Module:
    """The network of a spec with random weights and `n_classes` logits, for inputs of this size.

    Raises
    ------
    UsageError : it cannot be built for this size, or does not end in pooling and one linear layer.
    """
    import timm
    from timm.models.vision_transformer import VisionTransformer

    size = {"img_size": size_px} if spec.fixed_size else {}
    try:
        network = timm.create_model(
            spec.timm_name, pretrained=False, num_classes=n_classes, **dict(spec.options), **size, **options
        )
    except (AssertionError, TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"{spec.name} cannot be built for images of {size_px} px: {error}",
            "Choose another size with --set input_size_px=N.",
        ) from None
    if isinstance(network, VisionTransformer) and network.global_pool == "token":
        network.reset_classifier(n_classes, global_pool="avg")
    if not isinstance(network.get_classifier(), nn.Linear):
        raise UsageError(f"{spec.name} does not end in one linear layer", "Choose another network.")
    return network


def feature_map(network: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """The features, float (n, n_features, h, w), whose mean over h and w feeds the classifier.

    `pixels` : normalised, float (n, 3, s, s).
    """
    features = network.forward_features(pixels)
    if features.ndim == 3:
        tokens = features[:, getattr(network, "num_prefix_tokens", 0) :]
        height, width = network.patch_embed.grid_size
        features = tokens.transpose(1, 2).reshape(len(tokens), -1, height, width)
    elif getattr(network, "output_fmt", "NCHW") == "NHWC":
        features = features.permute(0, 3, 1, 2)
    return _before_classifier(network, features)


def _before_classifier(network: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """Apply what lies between pooling and classifier, so that it commutes with the mean."""
    if type(network) is MobileNetV3:  # and V4: they convolve after pooling
        if network.training:
            # Batch norm takes its statistics from the pooled features; maps are not made while training.
            return network.act2(network.norm_head(network.conv_head(network.global_pool(features))))
        conv, norm = network.conv_head, network.norm_head
        # The arithmetic of both, without the activation that timm's norms include.
        kernel, bias = (
            merged_kernel(conv, norm) if isinstance(norm, nn.BatchNorm2d) else (conv.weight, conv.bias)
        )
        linear = F.conv2d(features, kernel, bias)
        pooled = linear.mean(dim=(2, 3), keepdim=True)
        return linear * _ratio(network.act2(after_norm(norm, pooled)), pooled)
    layer_norm = getattr(network, "fc_norm", None)
    if not isinstance(layer_norm, nn.LayerNorm):
        layer_norm = getattr(getattr(network, "head", None), "norm", None)
    if isinstance(layer_norm, nn.LayerNorm):
        pooled = features.mean(dim=(2, 3))
        centre = pooled.mean(dim=1)[:, None, None, None]
        spread = (pooled.var(dim=1, unbiased=False) + layer_norm.eps).rsqrt()[:, None, None, None]
        return (features - centre) * spread * layer_norm.weight[:, None, None] + layer_norm.bias[
            :, None, None
        ]
    return features


def _ratio(after: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """What the activation multiplies its argument by; 0 where that is 0."""
    safe = torch.where(before == 0, torch.ones_like(before), before)
    return torch.where(before == 0, torch.zeros_like(before), after / safe)


def check_head(network: nn.Module, name: str, size_px: int) -> None:
    """Make sure that the mean of `feature_map` feeds the classifier as it does in timm.

    Raises
    ------
    UsageError : the network ends in another way.
    """
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            pixels = torch.randn((1, 3, size_px, size_px), generator=torch.Generator().manual_seed(0))
            expected = network(pixels)
            ours = network.get_classifier()(feature_map(network, pixels).mean(dim=(2, 3)))
            same = torch.allclose(ours, expected, atol=1e-3, rtol=1e-3)
    except (RuntimeError, AttributeError, ValueError):
        same = False
    finally:
        network.train(was_training)
    if not same:
        raise UsageError(
            f"{name} does not end in global average pooling and one linear layer",
            "Choose another network: class activation maps and the quality gate need this.",
        )
