"""Options that take one of a few names: checked before anything runs, listed in the help, and completed.

The names are those of the registry that owns them, looked up only when the option is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from skinlesion_cli.cli.names import imported_names, listed, names_of
from skinlesion_cli.errors import unknown_name

if TYPE_CHECKING:
    from skinlesion_cli.taxonomy.class_list import ClassList

# What `{names}` in a help text becomes until the help is shown: further names, and the registry.
_PLACEHOLDER = re.compile(r"\{([\w, -]*)@([\w.]+)\}")


def one_of(
    *option: str,
    help: str,
    known: str,
    also: Sequence[str] = (),
    beyond: tuple[tuple[str, ...], str] | None = None,
) -> Any:
    """A `typer.Option` that takes one of the names in `skinlesion_cli.<known>`; several if it is repeatable.

    Parameters
    ----------
    help : may contain `{names}`, which is shown as the list of the names.
    known : a registry such as `models.devices.NAMES` (see `names.names_of`).
    also : further names, which come first.
    beyond : prefixes of names that the stage checks, and the registry that completes those of the first.
    """

    def check(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
        if ctx.resilient_parsing or value == getattr(param, "default", None):
            return value
        for name in value if isinstance(value, list | tuple) else [value]:
            names = (*also, *names_of(known))
            if name is not None and name not in names and not (beyond and name.startswith(beyond[0])):
                raise typer.BadParameter(unknown_name(name, names))
        return value

    return typer.Option(
        *option,
        help=help.replace("{names}", f"{{{','.join(also)}@{known}}}"),
        callback=check,
        autocompletion=_completion(known, also, beyond),
    )


def suggested(*option: str, help: str, known: str) -> Any:
    """A `typer.Option` whose names are completed, but that takes other values too (a file, say)."""
    return typer.Option(
        *option, help=help.replace("{names}", f"{{@{known}}}"), autocompletion=_completion(known)
    )


def with_names(help: str) -> str:
    """A help text with its names filled in."""

    def fill(match: re.Match[str]) -> str:
        also, registry = match.groups()
        return listed([*filter(None, also.split(",")), *names_of(registry)])

    return _PLACEHOLDER.sub(fill, help)


def members(ctx: typer.Context, incomplete: str) -> list[str]:
    """Completion by the networks, cross-validated ones as a whole, of the workspace on the command line."""
    from skinlesion_cli.artifacts.workspace import DEFAULT_FOLDER, Workspace

    workspace = Workspace(Path(ctx.params.get("workspace") or DEFAULT_FOLDER))
    return [name for name in workspace.members() if name.startswith(incomplete)]


def networks(ctx: typer.Context, incomplete: str) -> list[str]:
    """Completion by the single networks of that workspace, each fold by itself."""
    from skinlesion_cli.artifacts.workspace import DEFAULT_FOLDER, Workspace

    workspace = Workspace(Path(ctx.params.get("workspace") or DEFAULT_FOLDER))
    return [name for name in workspace.trained() if name.startswith(incomplete)]


def classes(ctx: typer.Context, incomplete: str) -> list[str]:
    """Completion by the classes of the model or workspace on the command line."""
    return [code for code in _class_list(ctx).codes if code.startswith(incomplete)]


def classes_or_all(ctx: typer.Context, incomplete: str) -> list[str]:
    """The same, and `all`."""
    return [name for name in ("all", *_class_list(ctx).codes) if name.startswith(incomplete)]


def targets(ctx: typer.Context, incomplete: str) -> list[str]:
    """Completion of `CLASS:sensitivity=`."""
    return [f"{code}:sensitivity=" for code in _class_list(ctx).codes if code.startswith(incomplete)]


def _class_list(ctx: typer.Context) -> ClassList:
    from skinlesion_cli.artifacts.bundle import resolve_model
    from skinlesion_cli.artifacts.class_list import class_list_of
    from skinlesion_cli.artifacts.workspace import DEFAULT_FOLDER, Workspace

    model = ctx.params.get("model")
    if model and not model.startswith("hf://"):  # nothing is fetched while a command is being typed
        return class_list_of(resolve_model(model))
    return class_list_of(Workspace(Path(ctx.params.get("workspace") or DEFAULT_FOLDER)))


def _completion(
    known: str, also: Sequence[str] = (), beyond: tuple[tuple[str, ...], str] | None = None
) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        if beyond and incomplete.startswith(beyond[0][0]):
            return [name for name in imported_names(beyond[1]) if name.startswith(incomplete)]
        return [name for name in (*also, *names_of(known)) if name.startswith(incomplete)]

    return complete
