"""The single error boundary: every failure becomes one message on stderr and an exit code, and with `--json`
the envelope too.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperGroup

from skinlesion_cli.cli import envelope
from skinlesion_cli.cli.narrow import NarrowHelp
from skinlesion_cli.cli.terminal import discard_stdout, flush_stdout, printable, say
from skinlesion_cli.errors import ExitCode, Interruption, SkinLesionError

INTERRUPTED = "interrupted; finished work is kept"
_REFUSED = "Check free space, permissions and paths; --debug shows where it happened."
_REPORT = "This is a bug in skinlesion. Run the command again with --debug and report what it prints."
_FIRST_REPORTS_WITHIN_S = 10
# The base of all errors of the parser; newer versions of Typer carry their own copy of click's.
_ParserError: Any = typer.BadParameter.__mro__[1]


@dataclass(frozen=True)
class Invocation:
    """One run of a sub-command, and how it reports its outcome.

    `rows_on_stdout`: stdout carries rows, so the envelope goes to stderr. `silent`: another process of the
    same distributed training reports.
    """

    command: str
    as_json: bool = False
    quiet: bool = False
    debug: bool = False
    rows_on_stdout: bool = False
    silent: bool = False


def guarded(invocation: Invocation, run: Callable[[], None]) -> None:
    """Run a command; a failure is reported and becomes its exit code."""
    try:
        run()
    except BrokenPipeError:
        # The reader of our output has left (`| head`): there is nobody to report to.
        discard_stdout()
        raise SystemExit(int(ExitCode.OK)) from None
    except Interruption as interruption:
        _report_as_json(invocation, interruption.exit_code, INTERRUPTED)
        raise
    except SkinLesionError as error:
        _report(invocation, error.exit_code, error.message, error.hint)
        raise SystemExit(int(error.exit_code)) from None
    except OSError as error:
        where = "" if error.filename is None else f": {error.filename}"
        # It may be stdout that failed.
        flush_stdout()
        _report(invocation, ExitCode.FAILURE, f"{error.strerror or error}{where}", _REFUSED)
        raise SystemExit(int(ExitCode.FAILURE)) from None
    except Exception as error:
        message = f"this should not happen: {type(error).__name__}: {error}"
        _report(invocation, ExitCode.FAILURE, message, _REPORT)
        raise SystemExit(int(ExitCode.FAILURE)) from None


class Commands(NarrowHelp, TyperGroup):
    """All sub-commands; with `--json`, wrong arguments are reported as an envelope as well."""

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        arguments = list(args)
        try:
            context = super().make_context(info_name, args, parent, **extra)
        except _ParserError as error:
            _report_wrong_usage(None, arguments, error)
            raise
        context.meta[__name__] = arguments
        return context

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except _ParserError as error:
            _report_wrong_usage(ctx.invoked_subcommand, ctx.meta[__name__], error)
            raise


def _report_wrong_usage(command: str | None, arguments: list[str], error: Any) -> None:
    # The parser prints it.
    error.message = printable(error.message)
    if "--json" in arguments:
        path = error.ctx.command_path if error.ctx is not None else "skinlesion"
        hint = f"See `{path} --help`."
        envelope.write(envelope.of_error(command, error.exit_code, error.format_message(), hint))


def _report(invocation: Invocation, code: ExitCode, message: str, hint: str) -> None:
    if invocation.debug:
        say(traceback.format_exc())
    if invocation.silent:
        # The launcher terminates all processes as soon as one has failed. Most errors occur in all of them:
        # the first one gets the time to report it. If the error is this process's alone, nothing is lost by
        # waiting, since the others cannot go on without it.
        time.sleep(_FIRST_REPORTS_WITHIN_S)
        return
    say(f"error: {message}")
    if hint:
        say(hint)
    _report_as_json(invocation, code, message, hint)


def _report_as_json(invocation: Invocation, code: ExitCode, message: str, hint: str = "") -> None:
    if invocation.as_json and not invocation.silent:
        envelope.write(
            envelope.of_error(invocation.command, code, message, hint), aside=invocation.rows_on_stdout
        )
