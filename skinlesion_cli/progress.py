"""How the packages below the command line report what they are doing, without printing.

Only the command line prints. A stage gets a `Reporter` and reports through it; the default is silent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Task(Protocol):
    """One running piece of work with a known or unknown total."""

    def advance(self, steps: float = 1) -> None: ...

    def skip(self, steps: float) -> None:
        """Steps that an earlier run has done: they count as done, but say nothing of the speed."""

    def describe(self, text: str) -> None: ...


class Reporter(Protocol):
    """Where progress and notices go."""

    def note(self, text: str) -> None:
        """Something that the user should read (a fallback that was requested, a choice made)."""

    def row(self, table: str, values: dict[str, object]) -> None:
        """One row of a growing table, such as one epoch."""

    @contextmanager
    def task(self, description: str, total: float | None = None, unit: str = "") -> Iterator[Task]:
        """A progress bar for the duration of the `with` block."""
        yield _SilentTask()


class _SilentTask:
    def advance(self, steps: float = 1) -> None:
        pass

    def skip(self, steps: float) -> None:
        pass

    def describe(self, text: str) -> None:
        pass


class SilentReporter:
    """Reports nothing; for the Python interface and for tests."""

    def note(self, text: str) -> None:
        pass

    def row(self, table: str, values: dict[str, object]) -> None:
        pass

    @contextmanager
    def task(self, description: str, total: float | None = None, unit: str = "") -> Iterator[Task]:
        yield _SilentTask()
