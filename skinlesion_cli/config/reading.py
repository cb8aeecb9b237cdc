"""Reading YAML that people wrote: it is understood or refused, and never executed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from skinlesion_cli.errors import UsageError


def yaml_value(text: str, where: str) -> Any:
    """The value that a YAML text stands for.

    Raises
    ------
    UsageError : it cannot be read as YAML; `where` names the text in the message.
    """
    try:
        return yaml.safe_load(text)
    # A date such as 2001-99-99 is a ValueError, one of its tags on other text nearly anything, and deep
    # nesting a RecursionError.
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise UsageError(f"{where}: cannot be read as YAML: {error}") from None


def yaml_mapping(path: Path) -> dict[str, Any]:
    """The settings in a YAML file.

    Raises
    ------
    UsageError : the file cannot be read, or does not hold a mapping of names to values.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as YAML: {error}") from None
    values = yaml_value(text, str(path))
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UsageError(f"{path}: expected a mapping of settings")
    return values
