"""The rule of Windows that catches programs written elsewhere: nothing that is open is renamed or removed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

AVAILABLE = Path("/proc/self/maps").exists()


def open_paths() -> set[str]:
    """Paths of all files that this process has open or mapped into memory (Linux tells)."""
    paths: set[str] = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            paths.add(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:  # the one that listed them
            continue
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        paths.update(line.rstrip("\n").split(maxsplit=5)[5] for line in maps if "/" in line)
    return paths


@contextmanager
def open_files_stay() -> Iterator[list[str]]:
    """Within the block, renaming, replacing or removing a file that this process has open fails, as does
    renaming a folder with one in it; yields the list of what was refused, which grows.
    """
    refused: list[str] = []

    def guarded(call: Callable[..., Any]) -> Callable[..., Any]:
        def moved(*paths: Any, **options: Any) -> Any:
            if options.get("dir_fd") is None:
                in_use = open_paths()
                for path in map(os.path.realpath, paths):
                    if any(name == path or name.startswith(f"{path}/") for name in in_use):
                        refused.append(str(path))
                        raise PermissionError(errno.EACCES, "the file is used by another process", path)
            return call(*paths, **options)

        return moved

    with mock.patch.multiple(os, **{name: guarded(getattr(os, name)) for name in
                                    ("replace", "rename", "unlink", "remove")}):  # fmt: skip
        yield refused
