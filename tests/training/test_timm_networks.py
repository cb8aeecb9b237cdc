"""Networks of timm by name: eight families with random weights, from a training step to an export."""

from __future__ import annotations

import os

import numpy as np
import onnxruntime
import pytest
import torch

from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.config.schema import Preprocessing, Recipe
from skinlesion_cli.errors import ArtifactError, UsageError
from skinlesion_cli.explain.cam import class_maps
from skinlesion_cli.explain.methods import library_maps
from skinlesion_cli.inference.runtimes.torch import TorchRuntime
from skinlesion_cli.models.backbones import backbone, stored_name
from skinlesion_cli.models.network import LesionNet, restore_network, weights_to_bytes
from skinlesion_cli.models.onnx_export import to_onnx
from skinlesion_cli.models.timm_networks import check_head
from tests.support.class_lists import ISIC2018

# The smallest of each family, and the input size in pixels.
FAMILIES = {
    "resnet10t.c3_in1k": 64,
    "densenet121.ra_in1k": 64,
    "efficientnet_b0.ra_in1k": 64,
    "convnext_atto.d2_in1k": 64,
    "mobilenetv4_conv_small.e1200_r224_in1k": 64,
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k": 64,
    "swin_s3_tiny_224.ms_in1k": 64,
    "regnetx_002.pycls_in1k": 64,
}
# Writing a graph takes seconds: all eight are written by `make nightly`.
EVERYTHING = "SKINLESION_NIGHTLY" in os.environ
EXPORTED = [name for name in FAMILIES if EVERYTHING or name.startswith(("convnext", "swin"))]
PIXELS = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), dtype=np.uint8)


def network_of(name: str, size_px: int = 64) -> LesionNet:
    torch.manual_seed(0)
    spec = backbone(f"timm:{name}")
    return LesionNet(spec, Preprocessing(input_size_px=size_px, mean=spec.mean, std=spec.std), n_classes=7)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_trained_predicts_explains_and_is_exported(name, tmp_path):
    size_px = FAMILIES[name]
    net = network_of(name, size_px)
    check_head(net.backbone, name, size_px)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    before = net.classifier.weight.detach().clone()
    net.train()
    torch.nn.functional.cross_entropy(net(torch.from_numpy(PIXELS)), torch.tensor([0, 1])).backward()
    assert all(parameter.grad is not None for parameter in net.classifier.parameters())
    optimizer.step()
    assert not torch.equal(before, net.classifier.weight)

    recipe = Recipe(name="test", epochs=1, batch_size=1, input_size_px=size_px, learning_rate=1e-3)
    preprocessing = Preprocessing(input_size_px=size_px, mean=net.spec.mean, std=net.spec.std)
    path = tmp_path / "models" / net.spec.name / "checkpoint.json"
    Checkpoint(
        net.spec.name,
        recipe,
        preprocessing,
        weights_to_bytes(net),
        b"epoch\n",
        {},
        "none",
        0,
        classes=ISIC2018,
    ).save(path)
    restored = restore_network(Checkpoint.load(path))
    runtime = TorchRuntime(restored)
    logits, features = runtime.logits_and_features(PIXELS)
    with torch.no_grad():
        plain = net.eval()(torch.from_numpy(PIXELS)).numpy()
        whole = net.backbone(_normalised(net)).numpy()
    np.testing.assert_allclose(logits, plain, atol=1e-4)
    # As timm itself computes them, with its own pooling and head.
    np.testing.assert_allclose(plain, whole, atol=1e-4)

    weight = restored.classifier.weight.detach().numpy()
    bias = restored.classifier.bias.detach().numpy()
    np.testing.assert_allclose(features.mean(axis=(2, 3)) @ weight.T + bias, logits, atol=1e-4)
    classes = np.array([3, 5])
    maps = class_maps(features, weight, classes)
    assert class_maps(features[[0] * 7], weight, np.arange(7)).max() > 0
    assert maps.shape == (2, *features.shape[2:])
    by_library = library_maps(restored, PIXELS, classes, "gradcam")
    np.testing.assert_allclose(by_library, maps, atol=1e-4)

    if name not in EXPORTED:
        return
    session = onnxruntime.InferenceSession(to_onnx(restored, size_px), providers=["CPUExecutionProvider"])
    exported = session.run(None, {"pixels": PIXELS})
    np.testing.assert_allclose(exported[0], logits, atol=1e-4)
    np.testing.assert_allclose(exported[1], features, atol=1e-3)


def _normalised(net: LesionNet) -> torch.Tensor:
    return ((torch.from_numpy(PIXELS).float() - net.mean) / net.std).permute(0, 3, 1, 2)


def test_names_are_safe_on_disk_and_images_are_prepared_as_in_the_pretraining():
    spec = backbone("timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k")
    assert spec.name == "timm-vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    assert stored_name("timm:resnet18") == "timm-resnet18"
    assert stored_name("densenet121") == "densenet121"
    assert (spec.mean, spec.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert spec.interpolation == "antialias-bicubic"
    assert backbone("timm:resnet18.tv_in1k").interpolation == "antialias"
    assert spec.hub_id == "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    assert backbone(spec.name) is spec


@pytest.mark.parametrize(
    ("wrong", "near"), [("convnext_tny", "convnext_tiny"), ("resnet18.a1_in2k", "resnet18.a1_in1k")]
)
def test_a_misspelt_name_is_corrected(wrong, near):
    with pytest.raises(UsageError, match="did you mean") as refused:
        backbone(f"timm:{wrong}")
    assert near in str(refused.value)


def test_a_stored_network_that_this_timm_lacks_is_an_artifact_error(tmp_path):
    recipe = Recipe(name="test", epochs=1, batch_size=1, input_size_px=64, learning_rate=1e-3)
    stored = Checkpoint("timm-gone", recipe, Preprocessing(), b"", b"", {}, "none", 0, classes=ISIC2018)
    with pytest.raises(ArtifactError, match="timm-gone"):
        restore_network(stored)


def test_weights_of_another_input_size_have_their_positions_interpolated(monkeypatch, tmp_path):
    import huggingface_hub
    import timm
    from safetensors.torch import save_file

    from skinlesion_cli.models import pretrained

    name = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    torch.manual_seed(1)
    state = timm.create_model(name, pretrained=False).state_dict()
    file = tmp_path / "0123456789abcdef" / "model.safetensors"
    file.parent.mkdir()
    save_file(state, file)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo_id, filename, revision: str(file))
    net = network_of(name)
    assert pretrained.initialise(net, "auto") == f"hub timm/{name} 0123456789ab"
    assert net.backbone.pos_embed.shape == (1, 17, 192)
    assert torch.equal(net.backbone.blocks[3].attn.qkv.weight, state["blocks.3.attn.qkv.weight"])
