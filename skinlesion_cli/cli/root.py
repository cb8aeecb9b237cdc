"""The root of the `skinlesion` command, and how a sub-command joins it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand

from skinlesion_cli import __version__
from skinlesion_cli.cli import boundary
from skinlesion_cli.cli.narrow import NarrowHelp
from skinlesion_cli.taxonomy import DISCLAIMER

app = typer.Typer(
    name="skinlesion",
    cls=boundary.Commands,
    help="From a folder of dermoscopic images to calibrated, explained, triaged results.",
    epilog=DISCLAIMER,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"skinlesion {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version and leave."
    ),
) -> None:
    pass


class _Command(NarrowHelp, TyperCommand):
    pass


def command(name: str, *, example: str, section: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a sub-command with an example in its help, inside the error boundary."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(**arguments: Any) -> None:
            boundary.guarded(name, arguments, lambda: function(**arguments))

        wrapped.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined]
        body = inspect.getdoc(function) or ""
        short = body.partition("\n\n")[0]
        lines = "\n\n".join(f"  [cyan]{line}[/cyan]" for line in example.strip().splitlines())
        text = f"{body}\n\n[bold]Examples[/bold]\n\n{lines}"
        app.command(name, cls=_Command, help=text, short_help=short, rich_help_panel=section)(wrapped)
        return wrapped

    return register
