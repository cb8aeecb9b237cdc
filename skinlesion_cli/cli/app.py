"""The `skinlesion` command: its sub-commands, its signals, and the one error boundary."""

from __future__ import annotations

import functools
import inspect
import signal
import sys
from collections.abc import Callable
from typing import Any

import typer

from skinlesion_cli import __version__
from skinlesion_cli.cli import render
from skinlesion_cli.errors import ExitCode, Interruption
from skinlesion_cli.taxonomy import DISCLAIMER

app = typer.Typer(
    name="skinlesion",
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


def command(name: str, *, example: str, section: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a sub-command with an example in its help, inside the error boundary."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(**arguments: Any) -> None:
            render.guarded(lambda: function(**arguments), debug=bool(arguments.get("debug")))

        wrapped.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined]
        body = inspect.getdoc(function) or ""
        lines = "\n\n".join(f"  [cyan]{line}[/cyan]" for line in example.strip().splitlines())
        app.command(name, help=f"{body}\n\n[bold]Examples[/bold]\n\n{lines}", rich_help_panel=section)(
            wrapped
        )
        return wrapped

    return register


def _register_commands() -> None:
    # Imported for their registration. Each file imports its stage, and with it torch, only when it runs.
    from skinlesion_cli.cli import (  # noqa: F401
        calibrate,
        download,
        ensemble,
        evaluate,
        explain,
        info,
        predict,
        train,
    )


def _raise_interruption(number: int, _frame: object) -> None:
    # A second signal ends the process at once: clean-up that hangs must not hold the user.
    signal.signal(number, signal.SIG_DFL)
    raise Interruption(ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.TERMINATED)


def main() -> None:
    """Entry point of the console script."""
    signal.signal(signal.SIGINT, _raise_interruption)
    signal.signal(signal.SIGTERM, _raise_interruption)
    try:
        app()
    except Interruption as interruption:
        print("interrupted; what was finished is kept", file=sys.stderr)
        # Not sys.exit: worker threads and processes must not keep an interrupted command alive.
        sys.stdout.flush()
        sys.exit(int(interruption.exit_code))


_register_commands()
