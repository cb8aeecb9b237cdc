"""Errors that a user can cause, and what they say.

Every error that a user can cause is a `SkinLesionError`: what failed, which items, what to do next.
The command line turns it into one message and an exit code; anything else is a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the `skinlesion` command."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    PARTIAL = 3  # done, but some inputs failed
    ARTIFACT = 4  # an artifact is missing, damaged or does not match
    INTERRUPTED = 130
    TERMINATED = 143


class SkinLesionError(Exception):
    """A failure with a message for the user.

    Parameters
    ----------
    message : what failed and which items (see `name_items`).
    hint : what to do next; empty where there is nothing to advise.
    """

    exit_code: ExitCode = ExitCode.FAILURE

    def __init__(self, message: str, hint: str = "") -> None:
        # Messages quote names and values from files that nobody vouches for.
        message = escape_unprintable(message, but="\n\t")
        super().__init__(message)
        self.message = message
        self.hint = escape_unprintable(hint, but="\n\t")

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(SkinLesionError):
    """The command was asked for something that makes no sense (exit code 2)."""

    exit_code = ExitCode.USAGE


class DataError(SkinLesionError):
    """The data handed in cannot be used: a missing image, an unknown class, a leak (exit code 1)."""


class ArtifactError(SkinLesionError):
    """An artifact is missing, damaged, of a newer schema, or does not match another (exit code 4)."""

    exit_code = ExitCode.ARTIFACT


class ImageError(SkinLesionError):
    """One image cannot be read. In a batch it costs its own row only.

    `reason` is a short stable code (`not_an_image`, `truncated`, `too_large`, `too_small`, ...).
    """

    def __init__(self, reason: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.reason = reason


class WeightsError(SkinLesionError):
    """Pretrained weights cannot be had, or do not fit the network (exit code 1)."""


class Interruption(BaseException):
    """SIGINT or SIGTERM. A BaseException, so that no `except Exception` swallows it."""

    def __init__(self, exit_code: ExitCode) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def name_items(items: Iterable[object], shown: int = 5) -> str:
    """Name the first few offenders and say how many there are.

    >>> name_items(["a", "b"])
    'a, b'
    >>> name_items(range(7))
    '0, 1, 2, 3, 4 ... (7 in all)'
    """
    every = list(items)
    head = ", ".join(str(item) for item in every[:shown])
    return head if len(every) <= shown else f"{head} ... ({len(every)} in all)"


def unknown_name(name: str, known: Sequence[str]) -> str:
    """Say that there is no such name, with the nearest known one and all of them.

    >>> unknown_name("mel", ["MEL", "NV"])
    "there is no 'mel'; did you mean 'MEL'? Known: MEL, NV"
    """
    folded = {each.casefold(): each for each in known}
    close = difflib.get_close_matches(name.casefold(), folded, n=1)
    nearest = f"; did you mean {folded[close[0]]!r}?" if close else "."
    return f"there is no {name!r}{nearest} Known: {', '.join(known)}"


def one_line(text: str) -> str:
    """Text as it may be stored or printed: one line,
    with white space joined and what is not printable escaped.

    Escapes cover control characters, marks that turn the direction of writing, and lone surrogates, which
    stand for bytes of a name that are not text.

    >>> one_line("no image\\n\\x1b[31m")
    'no image \\\\x1b[31m'
    """
    return escape_unprintable(" ".join(text.split()))


def escape_unprintable(text: str, *, but: str = "") -> str:
    """Text with everything escaped that is not printable, except the characters in `but`.

    >>> escape_unprintable("a\\tb\\x07", but="\\t")
    'a\\tb\\\\x07'
    """
    return "".join(c if c.isprintable() or c in but else _escape(c) for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
