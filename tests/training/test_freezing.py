"""Freezing: batch norm merged into convolutions computes and learns the same as the separate modules."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from skinlesion_cli.config.schema import Preprocessing
from skinlesion_cli.models.backbones import BACKBONES, backbone
from skinlesion_cli.models.freezing import freeze_norms_and_stages, merge_norms, n_stages
from skinlesion_cli.models.network import LesionNet

PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3), dtype=np.uint8))


def network(name):
    """A network whose norms are no identity: statistics of some images, random scales and offsets."""
    spec = backbone(name)
    torch.manual_seed(0)
    made = LesionNet(spec, Preprocessing(input_size_px=64, mean=spec.mean, std=spec.std), n_classes=7).train()
    with torch.no_grad():
        made(PIXELS)
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0.0, 0.1)
    return made.double()


class Two(nn.Module):
    """A 1 x 1 convolution followed by a norm; with `twice`,
    the convolution's output is also used directly.
    """

    def __init__(self, *, twice: bool = False, bias: bool = False) -> None:
        super().__init__()
        self.twice = twice
        self.conv = nn.Conv2d(1, 1, 1, bias=bias)
        self.norm = nn.BatchNorm2d(1, eps=0.75)
        with torch.no_grad():
            self.conv.weight.fill_(5.0)
            if bias:
                self.conv.bias.fill_(4.0)
            self.norm.running_mean.fill_(3.0)
            self.norm.running_var.fill_(5.5)
            self.norm.weight.fill_(10.0)
            self.norm.bias.fill_(0.5)

    def forward(self, x):
        between = self.conv(x)
        return self.norm(between) + between if self.twice else self.norm(between)


@pytest.mark.parametrize(("bias", "expected"), [(False, 28.5), (True, 44.5)])
@pytest.mark.parametrize("learning", [True, False])
def test_a_norm_is_a_scale_and_an_offset_of_the_kernel(learning, bias, expected):
    # 10 / sqrt(5.5 + 0.75) = 4; the convolution makes 2 * 5 = 10 (14 with its bias); 4 * (10 - 3)
    # + 0.5 = 28.5.
    two = Two(bias=bias).eval()
    assert merge_norms(two, learning=learning) == 1
    assert two(torch.full((1, 1, 1, 1), 2.0)).item() == pytest.approx(expected)
    two.norm.forward = lambda x: x
    assert two(torch.full((1, 1, 1, 1), 2.0)).item() == pytest.approx(expected), (
        "all of it in the convolution"
    )


def test_only_a_learning_merge_follows_the_weights():
    for learning, expected in ((True, 68.5), (False, 28.5)):
        two = Two().eval()
        merge_norms(two, learning=learning)
        with torch.no_grad():
            two.conv.weight.fill_(10.0)
        assert two(torch.full((1, 1, 1, 1), 2.0)).item() == pytest.approx(expected)


def test_a_result_that_is_used_twice_is_left_alone():
    two = Two(twice=True).eval()
    assert merge_norms(two, learning=True) == 0
    assert two(torch.full((1, 1, 1, 1), 2.0)).item() == pytest.approx(38.5)


@pytest.mark.parametrize("name", BACKBONES)
def test_merged_networks_compute_and_learn_the_same(name):
    plain = network(name)
    freeze_norms_and_stages(plain.backbone, 2)
    merged = copy.deepcopy(plain)
    count = merge_norms(merged.backbone, learning=True)
    assert count == (59 if name == "densenet121" else norms(plain)), (
        "densenet's other norms precede convolutions"
    )
    assert list(merged.state_dict()) == list(plain.state_dict())
    torch.manual_seed(1)
    one = plain(PIXELS)
    torch.manual_seed(1)
    other = merged(PIXELS)
    torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-9)
    one.square().sum().backward()
    other.square().sum().backward()
    for (parameter, left), right in zip(plain.named_parameters(), merged.parameters(), strict=True):
        assert (left.grad is None) == (right.grad is None), parameter
        if left.grad is not None:
            scale = float(left.grad.abs().max()) + 1e-9
            torch.testing.assert_close(right.grad / scale, left.grad / scale, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_copy_for_inference_computes_the_same_and_leaves_the_network_alone(name):
    plain = network(name).eval()
    before = copy.deepcopy(plain.state_dict())
    quick = plain.for_inference()
    with torch.inference_mode():
        torch.testing.assert_close(quick(PIXELS), plain(PIXELS), rtol=1e-9, atol=1e-9)
    assert all(torch.equal(before[key], value) for key, value in plain.state_dict().items())
    assert all("forward" not in vars(module) for module in plain.modules())
    assert all(parameter.requires_grad for parameter in plain.parameters())


@pytest.mark.parametrize(
    ("name", "expected", "last_frozen", "first_free"),
    [
        ("resnet50", 6, "layer1.2.bn3.bias", "layer2.0.conv1.weight"),
        (
            "densenet121",
            6,
            "features.transition1.conv.weight",
            "features.denseblock2.denselayer1.norm1.weight",
        ),
        ("efficientnet_lite0", 9, "blocks.0.0.bn2.bias", "blocks.1.0.conv_pw.weight"),
    ],
)
def test_the_first_stages_are_those_next_to_the_image(name, expected, last_frozen, first_free):
    made = network(name).backbone
    assert n_stages(made) == expected
    freeze_norms_and_stages(made, 2)
    free = [key for key, value in made.named_parameters() if value.requires_grad]
    frozen = [key for key, value in made.named_parameters() if not value.requires_grad]
    assert (frozen[-1], free[0]) == (last_frozen, first_free)
    assert all(not m.training for m in made.modules() if isinstance(m, nn.BatchNorm2d))
    assert made.training


def norms(made):
    return sum(isinstance(module, nn.BatchNorm2d) for module in made.modules())
