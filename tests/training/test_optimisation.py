"""Optimiser, schedules, averaged weights, scores and mixing against hand-computed numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from skinlesion_cli.config.schema import Recipe
from skinlesion_cli.models.training.mixup import mix
from skinlesion_cli.models.training.optimisation import (
    WeightAverage,
    learning_rate_factor,
    make_optimizer,
    make_plateau,
    selection_score,
)


def recipe(**settings):
    base = {"name": "test", "epochs": 4, "batch_size": 8, "input_size_px": 32, "learning_rate": 0.1}
    return Recipe.model_validate(base | settings)


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 7))


def sizes(optimizer):
    return [
        (sum(p.numel() for p in group["params"]), group["weight_decay"]) for group in optimizer.param_groups
    ]


def test_weight_decay_is_kept_off_norms_and_biases():
    # Convolution 4*3*3*3 and linear 7*4 weights; biases 4 + 7, norm 4 + 4.
    assert sizes(make_optimizer(network(), recipe(weight_decay=0.02))) == [(136, 0.02), (19, 0.0)]


def test_published_weight_decay_is_on_everything():
    settings = recipe(weight_decay=0.02, decay_norms_and_biases=True, optimizer="adam")
    assert sizes(make_optimizer(network(), settings)) == [(155, 0.02)]


@pytest.mark.parametrize(
    ("kind", "expected"),
    # Without a gradient, Adam (L2) takes the decay as one and moves a whole step; AdamW shrinks by 1 %.
    [("adam", 1.9), ("adamw", 1.98)],
)
def test_adam_decays_through_the_gradient_and_adamw_apart_from_it(kind, expected):
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 2.0)
    optimizer = make_optimizer(layer, recipe(optimizer=kind, weight_decay=0.1))
    layer.weight.grad = torch.zeros(1, 1)
    optimizer.step()
    assert layer.weight.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 1 / 3), (1, 2 / 3), (2, 1.0), (9, 0.5), (16, 0.0), (99, 0.0)]
)
def test_warm_up_then_cosine(step, expected):
    # 4 epochs of 4 steps, the first 2 steps warm up; step 9 is half way through the other 14.
    settings = recipe(schedule="cosine", warmup_epochs=0.5)
    assert learning_rate_factor(settings, step, 4) == pytest.approx(expected, abs=1e-12)


def test_constant_schedule():
    assert {learning_rate_factor(recipe(schedule="constant"), step, 4) for step in range(20)} == {1.0}


def test_plateau_halves_after_patience_and_takes_a_tie_for_progress():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    plateau = make_plateau(optimizer, recipe(schedule="plateau", plateau_patience_epochs=1))
    assert plateau is not None
    rates = []
    # Progress, a tie, 0.01 % less (within the tolerance), then two bad ones: halved; progress; two bad:
    # halved.
    for score in (0.5, 0.5, 0.49996, 0.4, 0.4, 0.6, 0.5, 0.5):
        plateau.step(-score)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25]


def test_no_plateau_for_other_schedules():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    assert make_plateau(optimizer, recipe(schedule="cosine")) is None


@pytest.mark.parametrize(
    ("weight", "bacc", "loss", "expected"),
    [(0.85, 0.7, 1.0, 0.67), (0.92, 0.8, 0.25, 0.8)],  # 0.595 + 0.15 / 2; 0.736 + 0.08 / 1.25
)
def test_mixed_score(weight, bacc, loss, expected):
    settings = recipe(selection="mixed", selection_bacc_weight=weight)
    assert selection_score(settings, bacc, loss) == pytest.approx(expected)
    assert selection_score(recipe(), bacc, loss) == bacc


def test_averaged_weights_start_fast_and_settle_at_the_decay():
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 0.0)
    average = WeightAverage(layer, 0.9)
    nn.init.constant_(layer.weight, 1.0)
    average.update(layer, 0)  # decay 1/10
    assert average.network.weight.item() == pytest.approx(0.9)
    average.update(layer, 1)  # decay 2/11: 1 - 0.1 * 2/11
    assert average.network.weight.item() == pytest.approx(1 - 0.2 / 11)
    nn.init.constant_(layer.weight, 0.0)
    before = average.network.weight.item()
    average.update(layer, 1000)  # decay 0.9
    assert average.network.weight.item() == pytest.approx(0.9 * before)
    assert not average.network.weight.requires_grad


def test_averaged_buffers_follow_and_counters_are_copied():
    norm = nn.BatchNorm1d(1)
    average = WeightAverage(norm, 0.9)
    norm.running_mean.fill_(1.0)
    norm.num_batches_tracked.fill_(5)
    average.update(norm, 0)
    assert float(average.network.running_mean) == pytest.approx(0.9)
    assert int(average.network.num_batches_tracked) == 5


IMAGES = torch.zeros(4, 20, 30, 3, dtype=torch.uint8)
IMAGES[1], IMAGES[2], IMAGES[3] = 50, 100, 200
TARGETS = torch.eye(7)[:4]
VALUES = torch.tensor([0.0, 50, 100, 200])


def mixed(seed, **alphas):
    settings = {"mixup_alpha": 0.0, "cutmix_alpha": 0.0} | alphas
    return mix(IMAGES, TARGETS, seed=seed, **settings)


@pytest.mark.parametrize("seed", range(5))
def test_mixup_blends_pixels_and_targets_in_one_proportion(seed):
    images, targets = mixed(seed, mixup_alpha=0.8)
    assert torch.allclose(targets.sum(dim=1), torch.ones(4))
    # Every pixel is the mean of the classes' values under the mixed target.
    expected = targets[:, :4] @ VALUES
    assert torch.allclose(images, expected.view(4, 1, 1, 1).expand(4, 20, 30, 3), atol=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_pastes_one_rectangle_and_its_share_goes_into_the_target(seed):
    images, targets = mixed(seed, cutmix_alpha=1.0)
    assert images.dtype == torch.uint8
    means = images.float().mean(dim=(1, 2, 3))
    assert torch.allclose(means, targets[:, :4] @ VALUES, atol=1e-3)
    for row, value in enumerate(VALUES):
        pasted = images[row, :, :, 0] != value
        if pasted.any():
            rows, columns = pasted.any(dim=1), pasted.any(dim=0)
            assert int(pasted.sum()) == int(rows.sum()) * int(columns.sum())


def test_mixing_is_off_without_alphas_and_repeats_with_its_seed():
    images, targets = mixed(0)
    assert images is IMAGES
    assert targets is TARGETS
    first, again = (mixed(3, mixup_alpha=0.5, cutmix_alpha=0.5) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    state = torch.get_rng_state()
    mixed(4, mixup_alpha=0.5)
    assert torch.equal(torch.get_rng_state(), state)
    kinds = {mixed(seed, mixup_alpha=0.5, cutmix_alpha=0.5)[0].dtype for seed in range(20)}
    assert kinds == {torch.uint8, torch.float32}


@pytest.mark.parametrize("method", ["mixup_alpha", "cutmix_alpha"])
def test_metadata_is_blended_like_the_targets(method):
    settings = {"mixup_alpha": 0.0, "cutmix_alpha": 0.0} | {method: 1.0}
    # Each row's metadata is its target, so that both must come out the same.
    images, targets, metadata = mix(IMAGES, TARGETS, [TARGETS[:, :3]], seed=5, **settings)
    assert torch.equal(metadata, targets[:, :3])
    plain = mix(IMAGES, TARGETS, seed=5, **settings)
    assert torch.equal(images, plain[0])
    assert torch.equal(targets, plain[1])
    assert not torch.equal(targets, TARGETS)
