"""What reaches the terminal: standard streams that always work, and text without control characters."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import IO, Any

from skinlesion_cli.errors import UsageError, escape_unprintable

_closed: set[int] = set()


def printable(text: object) -> str:
    """Text as it may go to a terminal.

    Control characters, terminal escapes, marks that reverse the direction of writing, and halves of surrogate
    pairs (all from a file name, say) are made visible; newlines and tabs stay.
    """
    return escape_unprintable(str(text), but="\n\t")


def say(text: object) -> None:
    """Print a line on stderr, where everything goes that is not a result."""
    print(printable(text), file=sys.stderr, flush=True)


def open_standard_streams() -> None:
    """Make stdin, stdout and stderr usable, whatever the caller of the process did to them.

    A closed one is replaced by the null device, so that no file that is opened later takes its number and
    receives what is printed. stderr never fails: neither a full disk nor a reader
    that has left stops the work.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            _closed.add(number)
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stderr = _Unfailing(sys.stderr)


def stdout_for_rows() -> IO[bytes]:
    """stdout, for rows that must not be lost.

    Raises
    ------
    UsageError : stdout is closed.
    """
    if 1 in _closed:
        raise UsageError("--output - writes to stdout, which is closed", "Name a file with --output.")
    return sys.stdout.buffer


def flush_stdout() -> None:
    """Write what waits for stdout, or drop it if that is impossible; never fails."""
    try:
        sys.stdout.flush()
    except OSError:
        discard_stdout()


def discard_stdout() -> None:
    """Let everything that is still to be written to stdout vanish: it cannot be written."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


class _Unfailing:
    """A text stream that drops what it cannot write."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return int(self._stream.write(text))
        except OSError:
            return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()
