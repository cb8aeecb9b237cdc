"""What lies below a folder, in order, however deep it is and wherever its links lead."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from skinlesion_cli.data.reading.kinds import HEAD_BYTES, FileKind, has_image_suffix, kind_of

HIDDEN = "hidden file or folder"
_NOT_REGULAR = FileKind("pipe, socket or device")
_Tag = Literal["link", "folder", "file"]


def describe(passed_over: Counter[str]) -> str:
    """The counts of files that were passed over, in words; empty where there were none.

    >>> describe(Counter({"csv": 2, "pdf": 1}))
    '2 csv, 1 pdf'
    """
    return ", ".join(f"{count} {kind}" for kind, count in passed_over.most_common())


def summary_lines(passed_over: Counter[str]) -> list[str]:
    """What a summary says of files that were passed over: one line, or none."""
    return [f"skipped files that are not images: {describe(passed_over)}"] if passed_over else []


@dataclass(frozen=True)
class FoundFile:
    """A file below a folder: its path below it with `/`, its kind, or why it must not be opened."""

    name: str
    path: Path
    kind: FileKind
    refusal: tuple[str, str] | None = None


def sniff(path: Path) -> FileKind:
    """The kind of a file by its content; by its name alone where it cannot be opened.
    Nothing but files is opened.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return kind_of(b"", path.name) if has_image_suffix(path.name) else _NOT_REGULAR
        with path.open("rb") as file:
            return kind_of(file.read(HEAD_BYTES), path.name)
    except (OSError, ValueError):
        return kind_of(b"", path.name)


def walk(folder: Path, *, follow_links: bool, passed_over: Counter[str]) -> Iterator[FoundFile]:
    """Files below a folder that get a row, in the order of their names, each folder with what is below it.

    Hidden entries, what is no image, and pictures that this tool wrote are counted in `passed_over` by kind.
    Links are refused unless `follow_links`; then a link back to a folder above it is refused.
    """
    # A stack, not recursion: folders can be nested deeper than the interpreter calls.
    stack = [_Level(folder, "", ())]
    while stack:
        level = stack[-1]
        if level.entries is None:
            try:
                level.open()
            except OSError as error:
                stack.pop()
                message = f"the folder cannot be opened: {error.strerror or error}"
                yield FoundFile(level.prefix.rstrip("/"), level.folder, _NOT_REGULAR, ("unreadable", message))
                continue
        if not level.entries:
            stack.pop()
            continue
        name, tag = level.entries.pop()
        path, own = level.folder / name, f"{level.prefix}{name}"
        if name.startswith("."):
            passed_over[HIDDEN] += 1
        elif tag == "folder":
            stack.append(_Level(path, f"{own}/", level.above))
        elif tag == "file" or (follow_links and not _leads_to_folder(path)):
            yield from _file(own, path, passed_over)
        elif not follow_links:
            yield from _link(own, path, passed_over)
        elif _identity_of(path) in level.above or _identity_of(path) is None:
            yield FoundFile(own, path, _NOT_REGULAR, ("link", "the link leads back to a folder above it"))
        else:
            stack.append(_Level(path, f"{own}/", level.above))


class _Level:
    """One folder that is being gone through."""

    def __init__(self, folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> None:
        self.folder, self.prefix, self.above = folder, prefix, above
        # In reverse order, as (name, what it is); None before it is opened.
        self.entries: list[tuple[str, _Tag]] | None = None

    def open(self) -> None:
        # A folder may hold a million images, and has to be read whole to be in order.
        with os.scandir(self.folder) as entries:
            self.entries = sorted(((entry.name, _tag(entry)) for entry in entries), reverse=True)
        identity = _identity_of(self.folder)
        self.above = (*self.above, identity) if identity else self.above


def _tag(entry: os.DirEntry[str]) -> _Tag:
    if entry.is_symlink():
        return "link"
    return "folder" if entry.is_dir() else "file"


def _identity_of(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _file(name: str, path: Path, passed_over: Counter[str]) -> Iterator[FoundFile]:
    kind = sniff(path)
    if kind.image:
        yield FoundFile(name, path, kind)
    else:
        passed_over[kind.name] += 1


def _link(name: str, path: Path, passed_over: Counter[str]) -> Iterator[FoundFile]:
    if has_image_suffix(path.name) or _leads_to_folder(path):
        refusal = ("link", "a symbolic link below a folder is not followed (--follow-links)")
        yield FoundFile(name, path, _NOT_REGULAR, refusal)
    else:
        passed_over["symbolic link"] += 1


def _leads_to_folder(link: Path) -> bool:
    try:
        return link.is_dir()
    except OSError:  # a loop
        return True
