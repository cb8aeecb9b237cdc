"""Settings: where they come from, and what is refused."""

from __future__ import annotations

import pytest
import yaml

from skinlesion_cli.config.load import load_recipe, recipe_names
from skinlesion_cli.config.schema import Recipe
from skinlesion_cli.errors import UsageError

MINIMAL = {"name": "m", "epochs": 10, "batch_size": 8, "input_size_px": 64, "learning_rate": 0.001}


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "mine.yaml"
    values = {k: v for k, v in MINIMAL.items() if k != "name"}
    path.write_text(yaml.safe_dump(values | {"per_arch": {"resnet50": {"batch_size": 4, "epochs": 2}}}))
    return str(path)


def test_order_of_sources(recipe_file):
    def epochs(arch="tiny", settings=(), overrides=None, environment=None):
        return load_recipe(
            recipe_file, arch, settings=settings, overrides=overrides, environment=environment or {}
        ).epochs

    environment = {"SKINLESION_RECIPE_EPOCHS": "3"}
    assert epochs() == 10
    assert epochs(arch="resnet50") == 2
    assert epochs(arch="resnet50", environment=environment) == 3
    assert epochs(environment=environment, settings=["epochs=4"]) == 4
    assert epochs(environment=environment, settings=["epochs=4"], overrides={"epochs": 5}) == 5
    assert epochs(settings=["epochs=4"], overrides={"epochs": None}) == 4


def test_file_name_becomes_the_recipe_name(recipe_file):
    assert load_recipe(recipe_file, "tiny", environment={}).name == "mine"


def test_all_errors_at_once_with_suggestions(recipe_file):
    with pytest.raises(UsageError) as caught:
        load_recipe(recipe_file, "tiny", settings=["epoch=4", "batch_size=0", "ema_decay=2"], environment={})
    text = caught.value.message
    assert "epoch: no such setting; did you mean 'epochs'?" in text
    assert "batch_size: " in text
    assert "ema_decay: " in text
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("setting", ["epochs", "=3", "epochs: 3"])
def test_malformed_set(recipe_file, setting):
    with pytest.raises(UsageError, match="expected key=value"):
        load_recipe(recipe_file, "tiny", settings=[setting], environment={})


def test_unknown_recipe_suggests():
    with pytest.raises(UsageError, match="did you mean 'default'"):
        load_recipe("defalt", "tiny", environment={})


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_resolve(name):
    assert load_recipe(name, "efficientnet_lite0", environment={}).name == name


def test_hash_follows_content():
    one = Recipe.model_validate(MINIMAL)
    assert one.sha256() == Recipe.model_validate(dict(reversed(list(MINIMAL.items())))).sha256()
    assert one.sha256() != Recipe.model_validate(MINIMAL | {"epochs": 11}).sha256()


def test_frozen_stages_need_to_know_when():
    recipe = Recipe.model_validate(MINIMAL | {"freeze_from": 0.35, "freeze_stages": 4})
    assert [recipe.is_frozen_at(share) for share in (0.0, 0.34, 0.35, 1.0)] == [False, False, True, True]
    assert not Recipe.model_validate(MINIMAL).is_frozen_at(1.0)
    with pytest.raises(ValueError, match="freeze_stages needs freeze_from"):
        Recipe.model_validate(MINIMAL | {"freeze_stages": 4})


def test_progressive_sizes():
    recipe = Recipe.model_validate(MINIMAL | {"progressive_sizes_px": [[0.0, 32], [0.5, 48], [0.75, 64]]})
    assert [recipe.size_px_at(p) for p in (0.0, 0.49, 0.5, 0.74, 0.75, 1.0)] == [32, 32, 48, 48, 64, 64]
    with pytest.raises(ValueError, match="must be input_size_px"):
        Recipe.model_validate(MINIMAL | {"progressive_sizes_px": [[0.0, 32]]})
    with pytest.raises(ValueError, match=r"start at 0\.0 and ascend"):
        Recipe.model_validate(MINIMAL | {"progressive_sizes_px": [[0.1, 64]]})
