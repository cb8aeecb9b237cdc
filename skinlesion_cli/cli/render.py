"""How results and progress are shown: results on stdout, everything else on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from skinlesion_cli.cli import envelope
from skinlesion_cli.cli.narrow import drawn
from skinlesion_cli.cli.terminal import discard_stdout, printable, say
from skinlesion_cli.errors import ExitCode, SkinLesionError
from skinlesion_cli.taxonomy import DISCLAIMER

if TYPE_CHECKING:
    from skinlesion_cli.progress import Reporter, Task
    from skinlesion_cli.result import StageResult


def finish(result: StageResult, *, as_json: bool, quiet: bool, aside: bool = False) -> None:
    """Show a result and exit with its code. `aside`: on stderr, because stdout carries rows."""
    try:
        if as_json:
            envelope.write(envelope.of_result(result), aside=aside)
        elif not (aside and quiet):
            _show(result, quiet=quiet, aside=aside)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_stdout()
        raise SkinLesionError(
            f"the result cannot be printed: {error.strerror}",
            "The work itself is done"
            + ("; written: " + ", ".join(result.artifacts) if result.artifacts else "."),
        ) from None
    if result.exit_code is not ExitCode.OK:
        raise SystemExit(int(result.exit_code))


def _show(result: StageResult, *, quiet: bool, aside: bool = False) -> None:
    from rich.console import Console
    from rich.text import Text

    class Results(Console):
        def on_broken_pipe(self) -> None:
            raise  # for the error boundary, which exits quietly; rich would exit with code 1

    console = Results(stderr=aside, highlight=False, soft_wrap=not sys.stdout.isatty())
    for line in result.headline:
        console.print(Text(printable(line)))
    for table in result.tables:
        console.print(drawn(table, console))
    if result.artifacts:
        console.print(Text("wrote " + ", ".join(printable(path) for path in result.artifacts)))
    if quiet:
        return
    stderr = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())
    for warning in result.warnings:
        stderr.print(Text("warning: " + printable(warning), style="yellow"))
    if result.next_command:
        stderr.print(Text(printable(f"next: {result.next_command}"), style="dim"))
    stderr.print(Text(DISCLAIMER, style="dim"))


@contextmanager
def reporter(*, quiet: bool) -> Iterator[Reporter]:
    """Progress on stderr: live bars on a terminal, plain lines elsewhere, nothing when quiet."""
    if quiet:
        from skinlesion_cli.progress import SilentReporter

        yield SilentReporter()
    elif sys.stderr.isatty():
        with _live() as live:
            yield live
    else:
        yield _Lines()


class _Lines:
    """One line per notice and per row, for logs."""

    def note(self, text: str) -> None:
        say(text)

    def row(self, table: str, values: dict[str, object]) -> None:
        cells = "  ".join(f"{key} {_cell(value)}" for key, value in values.items())
        say(f"{table}: {cells}")

    @contextmanager
    def task(self, description: str, total: float | None = None, unit: str = "") -> Iterator[Task]:
        from skinlesion_cli.cli.timing import LoggedTask

        yield LoggedTask(printable(description), total, unit, self.note)


@contextmanager
def _live() -> Iterator[Reporter]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True, highlight=False)
    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    with progress:
        yield _Live(console, progress)


class _Live:
    def __init__(self, console: Any, progress: Any) -> None:
        self.console = console
        self.progress = progress
        self.headers: dict[str, tuple[str, ...]] = {}

    def note(self, text: str) -> None:
        from rich.text import Text

        self.console.print(Text(printable(text)))

    def row(self, table: str, values: dict[str, object]) -> None:
        widths = {key: max(len(key), 8) for key in values}
        if self.headers.get(table) != tuple(values):
            self.headers[table] = tuple(values)
            self.note("  ".join(f"{key:>{widths[key]}}" for key in values))
        self.note("  ".join(f"{_cell(value):>{widths[key]}}" for key, value in values.items()))

    @contextmanager
    def task(self, description: str, total: float | None = None, unit: str = "") -> Iterator[Task]:
        identity = self.progress.add_task(printable(description), total=total, speed="")
        try:
            yield _LiveTask(self.progress, identity, unit)
        finally:
            self.progress.remove_task(identity)


class _LiveTask:
    def __init__(self, progress: Any, identity: Any, unit: str) -> None:
        self.progress, self.identity, self.unit = progress, identity, unit

    def advance(self, steps: float = 1) -> None:
        self.progress.advance(self.identity, steps)
        speed = self.progress._tasks[self.identity].speed if self.unit else None
        if speed:
            self.progress.update(self.identity, speed=f"{speed:.1f} {self.unit}/s")

    def skip(self, steps: float) -> None:
        # Not by `update`, whose steps are samples of the speed.
        self.progress._tasks[self.identity].completed += steps

    def describe(self, text: str) -> None:
        self.progress.update(self.identity, description=printable(text))


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "undefined" if value != value else f"{value:.4g}"
    return str(value)
