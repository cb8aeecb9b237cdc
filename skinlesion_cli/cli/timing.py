"""Progress without a terminal: one line per minute."""

from __future__ import annotations

import time
from collections.abc import Callable

_INTERVAL_S = 60.0


class LoggedTask:
    """Counts steps, and reports progress and speed once a minute."""

    def __init__(self, description: str, total: float | None, unit: str, say: Callable[[str], None]) -> None:
        self.description, self.total, self.unit, self.say = description, total, unit, say
        self.done = self.skipped = 0.0
        self.started = self.reported = time.monotonic()

    def advance(self, steps: float = 1) -> None:
        self.done += steps
        now = time.monotonic()
        if now - self.reported >= _INTERVAL_S:
            self.reported = now
            rate = (self.done - self.skipped) / (now - self.started)
            left = f", {(self.total - self.done) / rate:.0f} s left" if self.total and rate else ""
            of = f" of {self.total:g}" if self.total else ""
            self.say(f"{self.description}: {self.done:g}{of} {self.unit} ({rate:.1f}/s{left})")

    def skip(self, steps: float) -> None:
        self.done += steps
        self.skipped += steps

    def describe(self, text: str) -> None:
        self.description = text
