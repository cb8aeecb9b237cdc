"""Training the last layer or adapters alone, and learning rates by layer."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.schema import Preprocessing, Recipe
from skinlesion_cli.errors import UsageError
from skinlesion_cli.models.backbones import backbone
from skinlesion_cli.models.network import LesionNet, restore_network
from skinlesion_cli.models.training.optimisation import make_optimizer
from skinlesion_cli.models.training.tuning import Tuning
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages.train import fitting
from skinlesion_cli.stages.train import stage as train
from tests.training.small import Said, small_recipe

VIT = "timm:test_vit"
PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), dtype=np.uint8))
LABELS = torch.tensor([0, 1, 2, 3])


def recipe(**settings) -> Recipe:
    given = {"name": "t", "epochs": 1, "batch_size": 4, "input_size_px": 32, "learning_rate": 1e-2}
    return Recipe(**(given | settings))


def network(arch: str = VIT, **options) -> LesionNet:
    torch.manual_seed(0)
    return LesionNet(backbone(arch), Preprocessing(input_size_px=32), n_classes=7, **options)


def trained(net: LesionNet, settings: Recipe, steps: int = 2) -> tuple[Tuning, set[str]]:
    """The names of the tensors of the state that a few steps change."""
    tuning = Tuning.prepare(net, settings, seed=3)
    optimizer = make_optimizer(net, settings)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for _ in range(steps):
        tuning.set_training_mode(net)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(PIXELS), LABELS).backward()
        optimizer.step()
    return tuning, {
        name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])
    }


def test_last_changes_the_classifier_alone():
    # `tiny` has batch norm, whose running statistics must stay too.
    _, changed = trained(network("tiny"), recipe(tune="last"))
    assert changed == {"backbone.classifier.weight", "backbone.classifier.bias"}
    _, changed = trained(network(n_metadata=4), recipe(tune="last"))
    assert {name.split(".")[0] for name in changed} == {"backbone", "metadata"}
    assert {name for name in changed if name.startswith("backbone.")} == {
        "backbone.head.weight",
        "backbone.head.bias",
    }


def test_adapters_are_trained_and_then_merged():
    pytest.importorskip("peft")
    plain = network()
    net = network()
    with torch.no_grad():
        tuning = Tuning.prepare(net, recipe(tune="lora"), seed=1)
        assert torch.equal(net.eval()(PIXELS), plain.eval()(PIXELS))
    net = network()
    tuning, changed = trained(net, recipe(tune="lora", lora_rank=2))
    adapters = {name for name in changed if "lora_" in name}
    assert changed - adapters == {"backbone.head.weight", "backbone.head.bias"}
    # qkv, proj, fc1 and fc2 of every block, with two matrices each.
    assert len(adapters) == 2 * 4 * len(net.backbone.blocks)
    assert {len(net.state_dict()[name]) for name in adapters if "lora_A" in name} == {2}
    with torch.no_grad():
        before = net.eval()(PIXELS)
        tuning.merge()
        after = net.eval()(PIXELS)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
    assert list(net.state_dict()) == list(plain.state_dict())
    assert not torch.equal(net.backbone.blocks[0].mlp.fc1.weight, plain.backbone.blocks[0].mlp.fc1.weight)


def test_networks_without_linear_layers_and_installations_without_peft_are_told_so(monkeypatch):
    pytest.importorskip("peft")
    with pytest.raises(UsageError, match="no linear layers") as refused:
        Tuning.prepare(network("timm:resnet10t.c3_in1k"), recipe(tune="lora"), seed=0)
    assert "--tune last" in refused.value.hint
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match="peft is not installed") as refused:
        Tuning.prepare(network(), recipe(tune="lora"), seed=0)
    assert "skinlesion[lora]" in refused.value.hint


def test_layers_whose_weights_are_used_directly_are_named():
    pytest.importorskip("peft")
    # EVA multiplies by the weight of qkv itself: an adapter around the layer would do nothing.
    net = network("timm:eva02_tiny_patch14_224")
    tuning = Tuning.prepare(net, recipe(tune="lora"), seed=0)
    assert "blocks.0.attn.qkv" in tuning.note
    assert not any("qkv.lora" in name for name in net.state_dict())


def test_every_layer_learns_at_its_rate():
    net = network(n_metadata=4)
    optimizer = make_optimizer(net, recipe(layer_decay=0.5, weight_decay=0.1))
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    found = {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert set(found) == set(names.values())
    # timm counts from the head: the norm before it is the layer below, then the blocks, then the stem.
    n_blocks = len(net.backbone.blocks)
    assert found["backbone.head.weight"] == pytest.approx((1e-2, 0.1))
    assert found["metadata.0.weight"] == pytest.approx((1e-2, 0.1))
    assert found["metadata.0.bias"] == pytest.approx((1e-2, 0.0))
    last, first = (found[f"backbone.blocks.{index}.mlp.fc1.weight"][0] for index in (n_blocks - 1, 0))
    assert first == pytest.approx(last * 0.5 ** (n_blocks - 1))
    assert found["backbone.patch_embed.proj.weight"][0] == pytest.approx(first * 0.5)
    assert found["backbone.pos_embed"][1] == 0.0
    assert found["backbone.blocks.0.norm1.weight"][1] == 0.0


@pytest.mark.parametrize(
    "settings", [{"tune": "lora", "freeze_from": 0.5}, {"tune": "last", "layer_decay": 0.7}]
)
def test_settings_that_contradict_each_other_are_refused(settings):
    with pytest.raises(ValueError, match="tune"):
        recipe(**settings)


@pytest.mark.parametrize("mode", ["lora", "last"])
def test_an_interrupted_tuning_ends_with_the_same_weights(config, monkeypatch, mode):
    if mode == "lora":
        pytest.importorskip("peft")
    settings = small_recipe("progressive_sizes_px=[]", "freeze_from=null", "freeze_stages=0", f"tune={mode}")
    settings = settings.model_copy(update={"layer_decay": 0.8 if mode == "lora" else 1.0})
    whole = config.replace(arch="timm-test_vit", recipe=settings, workspace=config.workspace.parent / "whole")
    whole.workspace.mkdir()
    (whole.workspace / "dataset").symlink_to(config.workspace / "dataset")
    train.run(whole, SilentReporter())

    cut = config.replace(arch="timm-test_vit", recipe=settings)
    save, saves = fitting._save, []

    def save_and_fail(job, trainer):
        save(job, trainer)
        saves.append(trainer.progress.epoch)
        raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "_save", save_and_fail)
    with pytest.raises(KeyboardInterrupt):
        train.run(cut, SilentReporter())
    monkeypatch.setattr(fitting, "_save", save)
    said = Said()
    train.run(cut, said)
    assert saves == [1]
    assert any(note.startswith("resuming at epoch 2") for note in said.notes)
    left, right = (Checkpoint.load(Workspace(c.workspace).checkpoint("timm-test_vit")) for c in (whole, cut))
    assert left.weights == right.weights
    assert restore_network(left).spec.name == "timm-test_vit"


def test_a_dry_run_counts_what_is_trained(config):
    settings = small_recipe("tune=last", "freeze_from=null", "freeze_stages=0")
    figures = train.run(config.replace(dry_run=True, recipe=settings), SilentReporter()).figures
    net = network("tiny")
    assert figures["trained_parameters"] == sum(p.numel() for p in net.classifier.parameters())
    assert figures["parameters"] == sum(p.numel() for p in net.parameters())
