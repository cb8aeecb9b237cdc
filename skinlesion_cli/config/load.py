"""Where the settings of a recipe come from: YAML < environment < --set < option;
errors are reported together.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from skinlesion_cli.config.reading import yaml_mapping, yaml_value
from skinlesion_cli.config.schema import Recipe
from skinlesion_cli.config.settings import problems
from skinlesion_cli.errors import UsageError

ENVIRONMENT_PREFIX = "SKINLESION_RECIPE_"


def configs_folder() -> Path:
    """The folder of shipped recipes: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def recipe_names() -> list[str]:
    """Names of the shipped recipes."""
    return sorted(path.stem for path in configs_folder().glob("*.yaml"))


def load_recipe(
    name_or_file: str,
    arch: str,
    *,
    settings: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    pretrained_px: int | None = None,
) -> Recipe:
    """Resolve a recipe for one architecture.

    Parameters
    ----------
    name_or_file : a shipped recipe's name, or a YAML file.
    arch : picks the `per_arch` section of the file, which overrides its other keys.
    settings : `key=value` pairs (`--set`); the value is read as YAML.
    overrides : options given on the command line (None: not given).
    environment : `SKINLESION_RECIPE_<KEY>` variables; the process's own where None.
    pretrained_px : side of the images of the network's pretraining; recipes with `at_least_pretrained_px`
        take this size where it is larger than theirs. None: not known.

    Raises
    ------
    UsageError : naming every unknown key, with the nearest known one, and every bad value.
    """
    path = _recipe_file(name_or_file)
    values = yaml_mapping(path)
    per_arch = values.pop("per_arch", None) or {}
    if not isinstance(per_arch, dict):
        raise UsageError(f"{path.name}: per_arch must map architectures to settings")
    of_arch = per_arch.get(arch) or {}
    if not isinstance(of_arch, dict) or not all(isinstance(key, str) for key in of_arch):
        raise UsageError(f"{path.name}: per_arch of {arch} must be a mapping of settings")
    follows = values.pop("at_least_pretrained_px", False)
    if not isinstance(follows, bool):
        raise UsageError(f"{path.name}: at_least_pretrained_px must be true or false")
    if follows and pretrained_px is not None:
        values = _at_least(values, pretrained_px)
    values = {"name": path.stem} | values | of_arch
    values |= _from_environment(os.environ if environment is None else environment)
    values |= _from_settings(settings)
    values |= {key: value for key, value in (overrides or {}).items() if value is not None}
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UsageError(
            f"recipe {name_or_file!r} cannot be used:\n"
            + "\n".join(f"  {line}" for line in problems(error, Recipe.model_fields)),
            "Known settings: " + ", ".join(Recipe.model_fields),
        ) from None


def _at_least(values: dict[str, Any], size_px: int) -> dict[str, Any]:
    """The settings with sizes in pixels that are no smaller than this."""
    names = ("input_size_px", "field_px", "cache_size_px")
    larger = {name: size_px for name in names if isinstance(values.get(name), int) and values[name] < size_px}
    return values | larger


def _recipe_file(name_or_file: str) -> Path:
    shipped = configs_folder() / f"{name_or_file}.yaml"
    if shipped.is_file() and os.sep not in name_or_file:
        return shipped
    path = Path(name_or_file)
    if path.is_file():
        return path
    close = difflib.get_close_matches(name_or_file, recipe_names(), n=1)
    raise UsageError(
        f"there is no recipe {name_or_file!r}" + (f"; did you mean {close[0]!r}?" if close else ""),
        "Recipes: " + ", ".join(recipe_names()) + "; or give the path of a YAML file.",
    )


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values = {}
    for key, text in environment.items():
        if key.startswith(ENVIRONMENT_PREFIX):
            values[key.removeprefix(ENVIRONMENT_PREFIX).lower()] = yaml_value(text, key)
    return values


def _from_settings(settings: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or not key.strip():
            raise UsageError(f"--set {setting!r}: expected key=value", "Example: --set epochs=5")
        values[key.strip()] = yaml_value(text, f"--set {setting!r}")
    return values
