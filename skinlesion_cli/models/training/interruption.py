"""Defers SIGINT and SIGTERM during training until the training state has been saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class HeldSignals:
    """Inside the `with` block SIGINT and SIGTERM are deferred until `deliver`;
    a second one is delivered at once.

    Only the main thread can defer signals; in other threads the block does nothing.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> HeldSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {n: signal.signal(n, self._hold) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        self._release()

    def deliver(self) -> None:
        """Raise the deferred signal, if there is one."""
        if self.pending is not None:
            number, self.pending = self.pending, None
            self._release()
            signal.raise_signal(number)

    def _hold(self, number: int, _frame: FrameType | None) -> None:
        if self.pending is not None:
            self.deliver()
        self.pending = number

    def _release(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
