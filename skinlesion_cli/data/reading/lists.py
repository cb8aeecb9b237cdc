"""Names from a stream: a list file, or stdin."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO

_CHUNK_BYTES = 1 << 16
# Longer than any path of any system: what comes without a separator is no list of names.
_MAX_NAME_BYTES = 1 << 16


def lines(file: IO[bytes]) -> Iterator[str]:
    """Names from a stream, separated by NUL if there is one before the first newline, else by newlines.

    A name longer than any path is cut off at 64 kB, so that memory stays bounded whatever the stream holds.
    """
    read = getattr(file, "read1", file.read)
    waiting, separator, begun, cut = b"", b"", False, False
    while chunk := read(_CHUNK_BYTES):
        waiting += chunk
        if not begun:
            waiting, begun = waiting.removeprefix(b"\xef\xbb\xbf"), True
        separator = separator or _first_separator(waiting)
        if separator:
            *whole, waiting = waiting.split(separator)
            # The rest of a name that was cut off belongs to it.
            for name in whole[1 if cut and whole else 0 :]:
                yield from _name(name, separator)
            cut = cut and not whole
        if len(waiting) > _MAX_NAME_BYTES:
            if not cut:
                yield from _name(waiting[:_MAX_NAME_BYTES], separator)
            waiting, cut = b"", True
    if not cut:
        yield from _name(waiting, separator)


def _first_separator(data: bytes) -> bytes:
    marks = [mark for mark in (b"\0", b"\n") if mark in data]
    return min(marks, key=data.index) if marks else b""


def _name(raw: bytes, separator: bytes) -> Iterator[str]:
    if separator != b"\0":
        raw = raw.removesuffix(b"\r")
    if raw:
        yield os.fsdecode(raw)
