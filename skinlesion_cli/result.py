"""What every stage returns: facts for the command line to render as text or as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from skinlesion_cli.errors import ExitCode


def counted(count: int, noun: str) -> str:
    """A count with its noun: `1 epoch`, `2 epochs`, `1,200 images`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def percent(share: float, digits: int = 1) -> str:
    """A share, 0 to 1, in percent: `71.9 %`.

    >>> percent(0.719), percent(0.95, 0)
    ('71.9 %', '95 %')
    """
    return f"{100 * share:.{digits}f} %"


@dataclass(frozen=True)
class Table:
    """A small table of a result; every row has one cell a column."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class StageResult:
    """The outcome of one stage.

    `figures` holds everything a program may want, in JSON types (None where undefined); `headline` the few
    lines for people. `artifacts` are the files written, as the user would type them. `next_command` is what
    usually comes next.
    """

    command: str
    headline: Sequence[str]
    figures: Mapping[str, Any] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    artifacts: Sequence[str] = ()
    warnings: Sequence[str] = ()
    next_command: str | None = None
    exit_code: ExitCode = ExitCode.OK
