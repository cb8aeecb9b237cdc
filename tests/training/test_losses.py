"""Losses against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from skinlesion_cli.models.training.losses import class_weights, logit_offsets, smooth_targets, training_loss

# Softmax of these logits: 2/8 on the first class and 1/8 on each other.
LOGITS = torch.tensor([[math.log(2.0), 0, 0, 0, 0, 0, 0]])


def test_smoothing_shares_out_among_the_other_six_classes():
    targets = smooth_targets(torch.tensor([2]), 0.1, 7)
    assert targets.tolist()[0] == pytest.approx([0.1 / 6, 0.1 / 6, 0.9] + [0.1 / 6] * 4)
    # torch's own smoothing would put 0.9 + 0.1 / 7 on the true class.
    assert targets[0, 2] != pytest.approx(0.9143, abs=1e-3)


@pytest.mark.parametrize(
    ("smoothing", "gamma", "expected"),
    [
        (0.0, 0.0, 1.386294),  # -ln(2/8)
        (0.1, 0.0, 1.455609),  # 0.9 * -ln(2/8) + 0.1 * -ln(1/8)
        (0.1, 1.0, 1.091707),  # times (1 - 2/8)
        (0.1, 2.0, 0.818780),  # times (1 - 2/8) squared
    ],
)
def test_focal_loss_with_smoothing(smoothing, gamma, expected):
    targets = smooth_targets(torch.tensor([0]), smoothing, 7)
    assert float(training_loss(LOGITS, targets, focal_gamma=gamma)) == pytest.approx(expected, abs=1e-6)


def test_focal_factor_is_not_differentiated():
    logits = LOGITS.clone().requires_grad_()
    training_loss(logits, smooth_targets(torch.tensor([0]), 0.1, 7), focal_gamma=1.0).backward()
    # 0.75 * (p - target): 0.75 * (0.25 - 0.9), and 0.75 * (0.125 - 0.1 / 6) six times.
    assert logits.grad is not None
    assert logits.grad.tolist()[0] == pytest.approx([-0.4875] + [0.08125] * 6, abs=1e-6)


def test_loss_is_the_mean_over_the_images():
    logits = torch.cat([LOGITS, torch.zeros(1, 7)])
    targets = smooth_targets(torch.tensor([0, 3]), 0.0, 7)
    assert float(training_loss(logits, targets)) == pytest.approx((1.386294 + math.log(7)) / 2, abs=1e-6)


def test_class_weights_weigh_each_image_by_its_class():
    weights = torch.tensor([2.0, 1, 1, 0.5, 1, 1, 1])
    logits = torch.cat([LOGITS, LOGITS])
    targets = smooth_targets(torch.tensor([0, 3]), 0.0, 7)
    expected = (2.0 * 1.386294 + 0.5 * 2.079442) / 2
    assert float(training_loss(logits, targets, class_weights=weights)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        ([4, 16, 1], [1.5, 0.75, 3.0]),  # (4 * 1/2 + 16 * 1/4 + 1 * 1) / 21 = 1/3
        ([1, 1, 1], [0.857143, 0.428571, 1.714286]),  # (1/2 + 1/4 + 1) / 3 = 7/12
        ([2, 4, 1], [1.166667, 0.583333, 2.333333]),  # (2 * 1/2 + 4 * 1/4 + 1 * 1) / 7 = 3/7
    ],
)
def test_class_weights_have_a_mean_of_one_over_what_is_drawn(drawn, expected):
    weights = class_weights(np.array([4, 16, 1, 0, 0, 0, 0]), 0.5, np.array([*drawn, 0.0, 0.0, 0.0, 0.0]))
    assert weights is not None
    assert weights.tolist() == pytest.approx([*expected, 0, 0, 0, 0], abs=1e-5)


def test_no_class_weights_without_a_power():
    assert class_weights(np.array([1]), 0.0, np.array([1.0])) is None


@pytest.mark.parametrize(
    ("strength", "drawn", "expected"),
    [
        (1.0, [4, 16, 1], [-1.658228, -0.271934, -3.044522]),  # ln 4/21, ln 16/21, ln 1/21
        (0.5, [4, 16, 1], [-0.829114, -0.135967, -1.522261]),
        (1.0, [2, 4, 1], [-1.252763, -0.559616, -1.945910]),  # ln 2/7, ln 4/7, ln 1/7
        (1.0, [1, 1, 1], [-1.098612, -1.098612, -1.098612]),  # drawn alike: nothing to make up for
    ],
)
def test_logit_offsets_are_the_logarithms_of_what_is_drawn(strength, drawn, expected):
    drawn = np.array([*drawn, 0.0, 0.0, 0.0, 0.0])
    offsets = logit_offsets(drawn, strength)
    assert offsets is not None
    # A class without images counts as the rarest that has any.
    assert offsets.tolist() == pytest.approx([*expected, *[expected[2]] * 4], abs=1e-5)
    assert logit_offsets(drawn, 0.0) is None


def test_an_adjusted_loss_asks_for_more_of_a_rare_class():
    offsets = torch.tensor([math.log(0.1)] + [0.0] * 6)
    targets = smooth_targets(torch.tensor([0]), 0.0, 7)
    # -ln(0.1 * 2 / (0.1 * 2 + 6)) instead of -ln(2 / 8).
    found = float(training_loss(LOGITS, targets, logit_offsets=offsets))
    assert found == pytest.approx(3.433987, abs=1e-6)


def test_class_weights_and_the_focal_factor_mean_the_class_of_the_image_not_of_the_offset_target():
    offsets, targets = torch.tensor([0.95, 0.05]).log(), torch.tensor([[0.1, 0.9]])
    # 0.1 * 0.95 and 0.9 * 0.05 of 0.14: -(0.678571 ln 0.95 + 0.321429 ln 0.05) = 0.997720, and the larger
    # part of the target is the other class's. Weight 0.1 * 1 + 0.9 * 10; focal factor 1 - 0.05.
    settings = {"logit_offsets": offsets, "class_weights": torch.tensor([1.0, 10.0]), "focal_gamma": 1.0}
    found = training_loss(torch.zeros(1, 2), targets, **settings)
    assert float(found) == pytest.approx(0.997720 * 9.1 * 0.95, abs=1e-4)


def test_smoothing_is_meant_for_the_network_own_logits():
    # A network that says exactly the smoothed target has nothing left to learn from it, offset or not.
    targets = smooth_targets(torch.tensor([0, 3]), 0.1, 7)
    logits = targets.log().requires_grad_()
    offsets = torch.tensor([0.1, 2.0, 1.0, 0.3, 1.0, 0.5, 1.0]).log()
    training_loss(logits, targets, logit_offsets=offsets).backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6
    # 0.9 * 0.1 against 0.1 / 6 each: 0.473684 and 0.087719, at -ln(0.2 / 6.2) and -ln(1 / 6.2).
    found = training_loss(LOGITS, targets[:1], logit_offsets=torch.tensor([math.log(0.1)] + [0.0] * 6))
    assert float(found) == pytest.approx(2.586914, abs=1e-5)
