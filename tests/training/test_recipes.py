"""The shipped recipes, and the published one against its own numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from skinlesion_cli.config.load import load_recipe, recipe_names
from skinlesion_cli.models.backbones import BACKBONES

PUBLISHED = {
    # input, batch, learning rate = weight decay, gamma, w, min_delta, patience of the rate, of stopping
    "resnet50": (224, 32, 1e-4, 1.0, 0.85, 0.001, 4, 10),
    "densenet121": (224, 32, 5e-5, 1.0, 0.85, 0.0005, 5, 10),
    "efficientnet_b3": (300, 8, 5e-5, 0.0, 0.92, 0.001, 4, 10),
}


@pytest.mark.parametrize("arch", PUBLISHED)
def test_published_recipe(arch):
    recipe = load_recipe("published", arch, environment={})
    size_px, batch_size, rate, gamma, weight, min_delta, plateau, stop = PUBLISHED[arch]
    assert (
        recipe.model_dump()
        | {
            "name": "published",
            "epochs": 35,
            "batch_size": batch_size,
            "drop_last": False,
            "epoch_fraction": 1.0,
            "input_size_px": size_px,
            "progressive_sizes_px": (),
            "harmonise_px": None,
            "field_px": None,
            "cache_size_px": size_px,
            "augmentation": "published",
            "sampler": "weighted",
            "sampler_power": 1.0,
            "loss_weight_power": 0.0,
            "focal_gamma": gamma,
            "label_smoothing": 0.1,
            "mixup_alpha": 0.0,
            "cutmix_alpha": 0.0,
            "optimizer": "adam",
            "learning_rate": rate,
            "weight_decay": rate,
            "decay_norms_and_biases": True,
            "clip_norm": 1.0,
            "schedule": "plateau",
            "warmup_epochs": 0.0,
            "plateau_factor": 0.5,
            "plateau_patience_epochs": plateau,
            "selection": "mixed",
            "selection_bacc_weight": weight,
            "min_delta": min_delta,
            "stop_patience_epochs": stop,
            "ema_decay": None,
            "mixed_precision": False,
            "metadata_fields": (),
        }
        == recipe.model_dump()
    )


BUNDLED_MODEL = Path(__file__).resolve().parents[2] / "examples" / "bundled_model"


def test_recipes_that_are_offered():
    assert recipe_names() == ["default", "fast", "light", "published"]


@pytest.mark.parametrize("file", [*recipe_names(), *map(str, sorted(BUNDLED_MODEL.glob("*.yaml")))])
def test_every_recipe_resolves_for_every_network_and_ends_at_the_size_of_prediction(file):
    for arch in BACKBONES:
        recipe = load_recipe(file, arch, environment={})
        assert recipe.name == Path(file).stem
        last = (recipe.epochs - 1) / recipe.epochs
        assert recipe.size_px_at(last) == recipe.input_size_px == recipe.preprocessing().input_size_px


def test_sizes_grow_with_the_training():
    recipe = load_recipe("fast", "efficientnet_lite0", environment={})
    # 14 epochs, the larger size from 55 % on: 7 / 14 is below, 8 / 14 above.
    assert [recipe.size_px_at(epoch / 14) for epoch in range(14)] == [96] * 8 + [128] * 6


def test_the_default_crops_at_the_size_of_pretraining_from_450_px():
    sizes = {
        arch: load_recipe("default", arch, environment={}).preprocessing()
        for arch in ("resnet50", "densenet121", "efficientnet_b3")
    }
    assert {arch: (p.input_size_px, p.field_px) for arch, p in sizes.items()} == {
        "resnet50": (224, 450),
        "densenet121": (224, 450),
        "efficientnet_b3": (300, 450),
    }


def test_mixing_ends_before_the_training():
    recipe = load_recipe("default", "resnet50", environment={})
    assert [recipe.mixes_at(epoch / 50) for epoch in (0, 39, 40, 49)] == [True, True, False, False]
    assert not load_recipe("light", "resnet50", environment={}).mixes_at(0.0)
