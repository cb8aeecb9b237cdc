"""Options that take one of a few names: checked before anything runs, and completed in the shell.

The names are those of the room that owns them, asked for only when the option is used. None of these modules loads
torch: pressing Tab must not take seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

from skinlesion_cli.errors import unknown_name


def one_of(*option: str, help: str, known: str, also: Sequence[str] = ()) -> Any:
    """A `typer.Option` that takes one of the names in `skinlesion_cli.<known>`; several where it is repeatable.

    `known` is a path such as `models.devices.NAMES`, to names or to a function that returns them; `also`: further
    names. None, for an option that was not given, is left alone.
    """

    def check(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
        if ctx.resilient_parsing or value == getattr(param, "default", None):
            return value
        for name in value if isinstance(value, list | tuple) else [value]:
            if name is not None and name not in _names(known, also):
                raise typer.BadParameter(unknown_name(name, _names(known, also)))
        return value

    return typer.Option(*option, help=help, callback=check, autocompletion=_completion(known, also))


def suggested(*option: str, help: str, known: str) -> Any:
    """A `typer.Option` whose names are completed, but that takes other things too (a file, say)."""
    return typer.Option(*option, help=help, autocompletion=_completion(known))


def members(ctx: typer.Context, incomplete: str) -> list[str]:
    """Completion by what the workspace that the command line names can make an ensemble of."""
    from skinlesion_cli.artifacts.workspace import DEFAULT_FOLDER, Workspace

    workspace = Workspace(Path(ctx.params.get("workspace") or DEFAULT_FOLDER))
    return [name for name in workspace.members() if name.startswith(incomplete)]


def networks(ctx: typer.Context, incomplete: str) -> list[str]:
    """Completion by the single networks of that workspace, each fold for itself."""
    from skinlesion_cli.artifacts.workspace import DEFAULT_FOLDER, Workspace

    workspace = Workspace(Path(ctx.params.get("workspace") or DEFAULT_FOLDER))
    return [name for name in workspace.trained() if name.startswith(incomplete)]


def _completion(known: str, also: Sequence[str] = ()) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return [name for name in _names(known, also) if name.startswith(incomplete)]

    return complete


def _names(known: str, also: Sequence[str]) -> list[str]:
    module, _, attribute = known.rpartition(".")
    found = getattr(import_module(f"skinlesion_cli.{module}"), attribute)
    return [*also, *(found() if callable(found) else found)]
