"""Class activation maps: hand-computed values, and agreement with pytorch-grad-cam."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from skinlesion_cli.errors import UsageError
from skinlesion_cli.explain.cam import class_maps, combined, fused_maps, in_frame, resized
from skinlesion_cli.explain.methods import METHODS, checked_method, is_closed, library_maps
from skinlesion_cli.inference.runtimes.base import Outputs
from skinlesion_cli.models.backbones import BACKBONES


def test_map_is_the_positive_part_of_the_weighted_sum() -> None:
    features = np.array([[[[1.0, 2.0], [3.0, 4.0]], [[1.0, 0.0], [0.0, 1.0]]]], np.float32)
    classifier = np.zeros((7, 2), np.float32)
    classifier[3] = (1.0, -3.0)
    found = class_maps(features, classifier, np.array([3]))
    # 1 - 3 = -2 -> 0; 2; 3; 4 - 3 = 1; each divided by 4 places.
    np.testing.assert_allclose(found, [[[0.0, 0.5], [0.75, 0.25]]])


def test_each_image_has_its_own_class() -> None:
    features = np.ones((2, 1, 1, 1), np.float32)
    classifier = np.arange(7, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(class_maps(features, classifier, np.array([2, 5]))[:, 0, 0], [2.0, 5.0])


@pytest.mark.parametrize("how", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
def test_resizing_agrees_with_pillow(how: Image.Resampling) -> None:
    maps = np.random.default_rng(0).random((2, 7, 9), np.float32)
    for width, height in ((40, 31), (9, 7), (4, 3)):
        expected = [Image.fromarray(heat).resize((width, height), how) for heat in maps]
        np.testing.assert_allclose(resized(maps, width, height, how), np.stack(expected), atol=1e-5)
        np.testing.assert_allclose(resized(maps[1], width, height, how), expected[1], atol=1e-5)


def test_changing_the_frame_keeps_the_sum() -> None:
    maps = np.array([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]], np.float32)
    grown = in_frame(maps, 5)
    assert grown.shape == (2, 5, 5)
    np.testing.assert_allclose(grown.sum(axis=(1, 2)), [1.0, 0.0], rtol=1e-6)
    assert grown[0].argmax() == 0


def test_members_are_averaged_by_weight() -> None:
    one, other = np.full((1, 2, 2), 4.0, np.float32), np.zeros((1, 2, 2), np.float32)
    np.testing.assert_allclose(combined([one, other], [0.25, 0.75]), np.full((1, 2, 2), 1.0))
    # The same map on a coarser grid says the same: a sum of 16 in either frame.
    coarse = np.full((1, 1, 1), 16.0, np.float32)
    np.testing.assert_allclose(combined([one, coarse], [0.5, 0.5]), np.full((1, 2, 2), 4.0))


def _network(name: str, size_px: int = 64):
    import torch

    from skinlesion_cli.config.schema import Preprocessing
    from skinlesion_cli.models.network import LesionNet

    torch.manual_seed(0)
    network = LesionNet(BACKBONES[name], Preprocessing(input_size_px=size_px), n_classes=7).eval()
    with torch.no_grad():
        network.classifier.weight.normal_(0, 0.5)
    return network


PIXELS = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
CLASSES = np.array([0, 3, 6])


@pytest.mark.parametrize("name", BACKBONES)
def test_fast_path_is_grad_cam_of_the_library(name: str) -> None:
    from skinlesion_cli.inference.runtimes.torch import TorchRuntime

    network = _network(name)
    features = TorchRuntime(network).logits_and_features(PIXELS)[1]
    fast = class_maps(features, network.classifier.weight.detach().numpy(), CLASSES)
    slow = library_maps(network, PIXELS, CLASSES, "gradcam")
    assert fast.shape == slow.shape
    assert slow.max() > 0
    scale = slow.max()
    np.testing.assert_allclose(fast / scale, slow / scale, atol=1e-4)


@pytest.mark.parametrize("method", [m for m in METHODS if not is_closed(m)])
def test_other_methods_give_a_map_for_every_image(method: str) -> None:
    maps = library_maps(_network("tiny"), PIXELS, CLASSES, method)
    assert maps.shape == (3, 2, 2)
    assert (maps >= 0).all()
    # Were there one target for all images, the maps of the later ones would be all zero.
    assert (maps.max(axis=(1, 2)) > 0).sum() >= 2


def test_no_gradients_or_hooks_stay_behind() -> None:
    network = _network("tiny")
    library_maps(network, PIXELS, CLASSES, "gradcam")
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not network.backbone.get_submodule(network.spec.cam_layer)._forward_hooks


def test_a_network_with_nan_is_refused() -> None:
    import torch

    network = _network("tiny")
    with torch.no_grad():
        network.classifier.weight[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="not finite"):
        library_maps(network, PIXELS, CLASSES, "gradcam")


def test_an_unknown_method_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"(?s)no method named 'gradcam\+'.*layercam"):
        checked_method("gradcam+")


def _outputs(features: np.ndarray, detail: np.ndarray) -> Outputs:
    return Outputs(np.zeros((len(features), 7), np.float32), features, detail)


def test_fused_map_by_hand() -> None:
    # One feature, one place of four stands out: means 1, distances 3, 1, 1, 1; Grad-CAM 4 / 4 = 1 there.
    features = np.array([[[[4.0, 0.0], [0.0, 0.0]]]], np.float32)
    detail = np.array([[[4.0, 2.0], [1.0, 1.0]]], np.float32)
    classifier = np.zeros((7, 1), np.float32)
    classifier[2] = 1.0
    maps = fused_maps(_outputs(features, detail), classifier, np.array([2]))
    np.testing.assert_allclose(maps, [[[1.0, 0.0], [0.0, 0.0]]])
    # Two places support the class alike; the detail is 4 and 1 above its mean.
    features = np.array([[[[4.0, 4.0], [0.0, 0.0]]]], np.float32)
    detail = np.array([[[8.0, 5.0], [2.0, 1.0]]], np.float32)
    maps = fused_maps(_outputs(features, detail), classifier, np.array([2]))
    np.testing.assert_allclose(maps, [[[1.6, 0.4], [0.0, 0.0]]], rtol=1e-6)


def test_fused_map_looks_for_detail_around_the_place_that_supports_the_class() -> None:
    features = np.zeros((1, 1, 3, 3), np.float32)
    features[0, 0, 1, 1] = 9.0
    # Grad-CAM 9 / 9 = 1 in the middle, distance 8. The product 8 becomes 2 in the middle, 1 at its sides and
    # 1/2 in the corners; less their mean 8/9, 10/9, 1/9 and nothing. The detail, less its mean 3: 2 in the
    # middle, 12 at the right, 4 in a corner. So the middle is to the right as sqrt(10) 2 to 12.
    detail = np.array([[[7.0, 0.0, 0.0], [0.0, 5.0, 15.0], [0.0, 0.0, 0.0]]], np.float32)
    maps = fused_maps(_outputs(features, detail), np.ones((7, 1), np.float32), np.array([0]))
    np.testing.assert_allclose(maps, [[[0, 0, 0], [0, 0.345143, 0.654857], [0, 0, 0]]], rtol=1e-5)


def test_fused_map_has_the_sum_of_grad_cam_on_the_finer_grid() -> None:
    rng = np.random.default_rng(0)
    outputs = _outputs(rng.random((3, 5, 4, 4), np.float32), rng.random((3, 8, 8), np.float32))
    classifier = rng.normal(size=(7, 5)).astype(np.float32)
    found = fused_maps(outputs, classifier, CLASSES)
    assert found.shape == (3, 8, 8)
    wanted = class_maps(outputs.features, classifier, CLASSES).sum(axis=(1, 2))
    assert wanted.max() > 0
    np.testing.assert_allclose(found.sum(axis=(1, 2)), wanted, rtol=1e-5)


def test_fused_map_of_a_flat_image_is_grad_cam() -> None:
    features = np.full((1, 1, 2, 2), 3.0, np.float32)
    found = fused_maps(_outputs(features, np.ones((1, 4, 4), np.float32)), np.ones((7, 1)), np.array([0]))
    np.testing.assert_allclose(found, np.full((1, 4, 4), 3.0 / 16))
    against = fused_maps(_outputs(features, np.ones((1, 4, 4), np.float32)), -np.ones((7, 1)), np.array([0]))
    np.testing.assert_array_equal(against, np.zeros((1, 4, 4)))


@pytest.mark.parametrize("name", BACKBONES)
def test_detail_is_twice_as_fine_and_leaves_the_features_alone(name: str) -> None:
    import torch

    network = _network(name)
    with torch.inference_mode():
        pixels = torch.from_numpy(PIXELS[:1])
        outputs, features = network.outputs(pixels), network.features(pixels)
    assert outputs["detail"].shape == (1, 4, 4)  # 64 px / 16; 14 x 14 at 224 px
    assert outputs["detail"].min() >= 0
    torch.testing.assert_close(outputs["features"], features)
