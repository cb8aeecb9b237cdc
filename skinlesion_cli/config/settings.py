"""Settings of the stages: what a command, or a Python caller, asks a stage to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from pydantic import AfterValidator, ConfigDict, ValidationError

from skinlesion_cli.config.schema import Frozen
from skinlesion_cli.errors import UsageError, unknown_name


class StageSettings(Frozen):
    """Base of all stage settings: immutable, checked once when they are made.

    Raises
    ------
    UsageError : when they are made, naming every setting that is unknown or has a bad value.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    # Type checkers see the fields of each class instead.
    if not TYPE_CHECKING:

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise UsageError("\n".join(problems(error, type(self).model_fields))) from None

    def replace(self, **changes: Any) -> Self:
        """The same settings with these changes, checked again."""
        return type(self)(**(dict(self) | changes))


def problems(error: ValidationError, known: Iterable[str]) -> list[str]:
    """One line per bad value, with its name and, for an unknown name, the nearest known one."""
    lines = []
    for problem in error.errors(include_url=False):
        name = ".".join(str(part) for part in problem["loc"])
        match problem["type"]:
            case "extra_forbidden":
                close = difflib.get_close_matches(name, list(known), n=1)
                lines.append(f"{name}: no such setting" + (f"; did you mean {close[0]!r}?" if close else ""))
            case "missing":
                lines.append(f"{name}: missing")
            case "value_error":
                text = str(problem["ctx"]["error"])
                lines.append(f"{name}: {text}" if name else text)
            case _:
                lines.append(f"{name}: {problem['msg']} (got {problem['input']!r})")
    return lines


def one_of(known: Iterable[str], also: Iterable[str] = ()) -> AfterValidator:
    """Accepts one of these names, such as the keys of a registry; anything else is refused with the list."""
    names = (*also, *known)

    def check(name: str) -> str:
        if name not in names:
            raise ValueError(unknown_name(name, names))
        return name

    return AfterValidator(check)
