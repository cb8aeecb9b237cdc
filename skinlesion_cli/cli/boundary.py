"""The single error boundary: every failure becomes one message on stderr and an exit code, and with `--json`
the envelope too.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import typer
from typer.core import TyperGroup

from skinlesion_cli.cli import envelope
from skinlesion_cli.cli.narrow import NarrowHelp, plain
from skinlesion_cli.cli.render import is_first_process
from skinlesion_cli.errors import ExitCode, Interruption, SkinLesionError

INTERRUPTED = "interrupted; what was finished is kept"
_REPORT = "It is a fault of skinlesion; run again with --debug and report what it prints."
# The base of all that the parser finds wrong; newer versions of Typer carry their own copy of click's.
_ParserError: Any = typer.BadParameter.__mro__[1]


def guarded(command: str, arguments: Mapping[str, Any], run: Callable[[], None]) -> None:
    """Run a command; a failure is told and becomes its exit code."""
    try:
        run()
    except BrokenPipeError:
        # Whoever read our output has left (`| head`): nothing to say, and no one to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(int(ExitCode.OK)) from None
    except Interruption as interruption:
        _as_json(command, arguments, interruption.exit_code, INTERRUPTED)
        raise
    except SkinLesionError as error:
        _tell(command, arguments, error.exit_code, error.message, error.hint)
        raise SystemExit(int(error.exit_code)) from None
    except Exception as error:
        message = f"this should not happen: {type(error).__name__}: {error}"
        _tell(command, arguments, ExitCode.FAILURE, message, _REPORT)
        raise SystemExit(int(ExitCode.FAILURE)) from None


class Commands(NarrowHelp, TyperGroup):
    """All sub-commands; what is wrong with the arguments gives the envelope as well."""

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        given = list(args)
        try:
            context = super().make_context(info_name, args, parent, **extra)
        except _ParserError as error:
            _parsing_failed(None, given, error)
            raise
        context.meta[__name__] = given
        return context

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except _ParserError as error:
            _parsing_failed(ctx.invoked_subcommand, ctx.meta[__name__], error)
            raise


def _parsing_failed(command: str | None, arguments: list[str], error: Any) -> None:
    if "--json" in arguments:
        path = error.ctx.command_path if error.ctx is not None else "skinlesion"
        hint = f"See `{path} --help`."
        envelope.write(envelope.of_error(command, error.exit_code, error.format_message(), hint))


def _tell(command: str, arguments: Mapping[str, Any], code: ExitCode, message: str, hint: str) -> None:
    if arguments.get("debug"):
        traceback.print_exc()
    if not is_first_process():
        return
    print(f"error: {plain(message)}", file=sys.stderr)
    if hint:
        print(plain(hint), file=sys.stderr)
    _as_json(command, arguments, code, message, hint)


def _as_json(
    command: str, arguments: Mapping[str, Any], code: ExitCode, message: str, hint: str = ""
) -> None:
    if arguments.get("as_json") and is_first_process():
        streaming = str(arguments.get("output")) == "-"
        envelope.write(envelope.of_error(command, code, message, hint), aside=streaming)
