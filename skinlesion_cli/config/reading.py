"""Reading YAML that people wrote: it is understood or refused, and never executed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from skinlesion_cli.errors import UsageError

# The recipes that ship with the package have 2 kB and less.
MAX_YAML_BYTES = 256 << 10
_MAX_KEYS = 1000


class _Loader(yaml.SafeLoader):
    """Safe values only, without aliases: nine that refer to one another stand for a billion values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed; write the value out")
        return super().compose_node(parent, index)


def yaml_value(text: str, where: str) -> Any:
    """The value that a YAML text stands for.

    Raises
    ------
    UsageError : it cannot be read as YAML; `where` names the text in the message.
    """
    if len(text) > MAX_YAML_BYTES:
        raise UsageError(f"{where}: more than {MAX_YAML_BYTES:,} bytes of YAML")
    try:
        # A SafeLoader: nothing is constructed but plain values.
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
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
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_YAML_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as YAML: {error}") from None
    values = yaml_value(text, str(path))
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UsageError(f"{path}: expected a mapping of settings")
    if len(values) > _MAX_KEYS:
        raise UsageError(f"{path}: {len(values):,} settings; there are not that many")
    return values
