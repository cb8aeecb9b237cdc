"""The class activation maps that `map_study.py` compares.

`dilated` leaves out the last reduction of a network and spreads every later kernel by as much ("a trous";
Yu et al., 2017, arXiv:1705.09914): its last features are twice as fine, with the weights that it was trained
with. Every second place is one of the network's own features; those between are what it would give for the
image moved by half a place.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import nn

from skinlesion_cli.explain.cam import fused_maps, resized
from skinlesion_cli.inference import tta
from skinlesion_cli.inference.runtimes.base import Outputs

WIDTH, HEIGHT = 100, 75  # maps and masks are compared at this size
ZOOM = 0.75
CHOSEN = "fused (default)"
WHOLE_VIEWS = tuple(view for view in tta.ZOOM if tta.is_whole(view))


class Network:
    """One member: features of its layers for pixels uint8 (s, s, 3), and its gradients."""

    def __init__(self, member: Any) -> None:
        self.runtime = member.runtime
        self.net = member.runtime.network.eval()
        self.classifier = member.classifier
        self.finer = dilated(self.net.backbone, member.preprocessing.input_size_px).eval()
        sixteen = [info["module"] for info in self.net.backbone.feature_info if info["reduction"] == 16]
        self.layer = self.net.backbone.get_submodule(sixteen[-1])

    def forward(self, pixels: np.ndarray) -> tuple[Outputs, np.ndarray]:
        """All outputs for one image, and the last features of the dilated network, (c, 2 h, 2 w)."""
        outputs = self.runtime.outputs(pixels[None])
        with torch.inference_mode():
            images = torch.from_numpy(pixels[None].astype(np.float32))
            inputs = ((images - self.net.mean) / self.net.std).permute(0, 3, 1, 2)
            finer = self.finer.forward_features(inputs)
        return outputs, finer[0].numpy()

    def of_view(self, pixels: np.ndarray, view: str) -> Outputs:
        """All outputs for one image as a view shows it."""
        return self.runtime.outputs(tta.apply(view, pixels[None]))

    def at_sixteen(self, pixels: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Activations and gradient of `weights @ logits` at the layer of stride 16, both (c, 2 h, 2 w)."""
        kept = []
        hook = self.layer.register_forward_hook(lambda _m, _i, out: kept.append(out))
        try:
            with torch.enable_grad():
                images = torch.from_numpy(pixels[None].astype(np.float32)).requires_grad_()
                score = (self.net(images)[0] * torch.from_numpy(weights)).sum()
                gradient = torch.autograd.grad(score, kept[0])[0]
        finally:
            hook.remove()
        return kept[0][0].detach().numpy(), gradient[0].numpy()


def shifted(pixels: np.ndarray, y: int, x: int) -> np.ndarray:
    """The image moved by so many pixels, its border repeated."""
    side = pixels.shape[0]
    rows, columns = (np.clip(np.arange(side) - by, 0, side - 1) for by in (y, x))
    return np.ascontiguousarray(pixels[rows][:, columns])


def at_size(heat: np.ndarray) -> np.ndarray:
    """float32 (HEIGHT, WIDTH), bilinear."""
    return resized(heat, WIDTH, HEIGHT, Image.Resampling.BILINEAR)


def cam(weights: np.ndarray, features: np.ndarray) -> np.ndarray:
    """The signed map of weights (c,) and features (c, h, w)."""
    result: np.ndarray = np.tensordot(weights, features, 1).astype(np.float32)
    return result


def above_mean(heat: np.ndarray) -> np.ndarray:
    """A map less its mean, not below zero."""
    result: np.ndarray = np.maximum(heat - heat.mean(), 0.0)
    return result


def candidates(
    networks: list[Network], pixels: np.ndarray, decided: int, slow: bool
) -> dict[str, np.ndarray]:
    """Signed maps at one size by the candidate's name, each the mean over the networks."""
    maps: dict[str, list[np.ndarray]] = defaultdict(list)
    side = pixels.shape[0]
    for network in networks:
        outputs, fine = network.forward(pixels)
        coarse, detail = outputs.features[0], outputs.detail[0]
        classes, classifier = np.array([decided]), network.classifier
        own, mean = classifier[decided], classifier[decided] - classifier.mean(axis=0)
        maps[CHOSEN].append(at_size(fused_maps(outputs, classifier, classes)[0]))
        views = [fused_maps(network.of_view(pixels, view), classifier, classes) for view in WHOLE_VIEWS]
        turned_back = [tta.invert(view, heat)[0] for view, heat in zip(WHOLE_VIEWS, views, strict=True)]
        maps["fused, mean of 4 views"].append(at_size(np.mean(turned_back, axis=0)))
        fused = fused_maps(outputs._replace(features=fine[None]), classifier, classes)[0]
        maps["fused, dilated"].append(at_size(fused))
        maps["last features (Grad-CAM)"].append(at_size(cam(own, coarse).clip(0)))
        maps["last features, above their mean"].append(above_mean(at_size(cam(own, coarse))))
        maps["last features, less the mean of the classes"].append(at_size(cam(mean, coarse)))
        maps["dilated"].append(at_size(cam(own, fine)))
        maps["dilated, above its mean"].append(above_mean(at_size(cam(own, fine))))
        maps["stride 16: detail alone"].append(above_mean(at_size(detail)))
        both = above_mean(at_size(cam(own, coarse))) * above_mean(at_size(detail))
        maps["last features and detail, above their means"].append(np.sqrt(both))
        active, gradient = network.at_sixteen(pixels, np.eye(7, dtype=np.float32)[decided])
        layer = at_size((active * gradient.clip(0)).sum(0))
        maps["stride 16: HiResCAM"].append(at_size((active * gradient).sum(0)))
        maps["stride 16: LayerCAM"].append(layer)
        maps["stride 16: Grad-CAM"].append(at_size(np.tensordot(gradient.mean(axis=(1, 2)), active, 1)))
        positive = at_size((active * gradient).clip(0).sum(0))
        maps["stride 16: positive contributions, above their mean"].append(above_mean(positive))
        maps["last features x LayerCAM"].append(np.sqrt(at_size(cam(own, coarse)).clip(0) * layer.clip(0)))
        if not slow:
            continue
        step = round(side / coarse.shape[-1] / 2)
        moved, moved_fine = [], []
        for y in (-step // 2, step // 2):
            for x in (-step // 2, step // 2):
                moved_outputs, f = network.forward(shifted(pixels, y, x))
                c = moved_outputs.features[0]
                shares = (-y / side * HEIGHT, -x / side * WIDTH)
                for features, into in ((c, moved), (f, moved_fine)):
                    back = ndimage.shift(at_size(cam(own, features)), shares, order=1, mode="nearest")
                    into.append(back)
        maps["last features, 4 shifts"].append(np.mean(moved, axis=0))
        maps["dilated, 4 shifts"].append(np.mean(moved_fine, axis=0))
        zoomed = []
        for top in (0.0, 1 - ZOOM):
            for left in (0.0, 1 - ZOOM):
                box = [round(v * side) for v in (left, top, left + ZOOM, top + ZOOM)]
                crop = Image.fromarray(pixels).crop(box).resize((side, side), Image.Resampling.BICUBIC)
                c = network.forward(np.asarray(crop))[0].features[0]
                w, h = round(ZOOM * WIDTH), round(ZOOM * HEIGHT)
                part = np.full((HEIGHT, WIDTH), np.nan, np.float32)
                y, x = round(top * HEIGHT), round(left * WIDTH)
                small = resized(cam(own, c), w, h, Image.Resampling.BILINEAR)[: HEIGHT - y, : WIDTH - x]
                part[y : y + h, x : x + w] = small
                zoomed.append(part)
        maps["last features, 4 zooms"].append(
            np.nanmean(np.stack([at_size(cam(own, coarse)), *zoomed]), axis=0)
        )
    return {name: np.mean(each, axis=0) for name, each in maps.items()}


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
