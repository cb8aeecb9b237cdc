"""Finding image files in a folder, without following where links lead."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from skinlesion_cli.data.reading.kinds import has_image_suffix
from skinlesion_cli.errors import UsageError


@dataclass(frozen=True)
class Listing:
    """`files` are relative POSIX paths, sorted by code point;
    `links` are the links that were not followed.
    """

    root: Path
    files: tuple[str, ...]
    links: tuple[str, ...]


def list_images(root: Path) -> Listing:
    """Image files beneath a folder by their suffix, subfolders included; the same order on every machine.

    Hidden files and folders, and links to files or folders, are left out: a link can lead out of the folder
    or in circles.

    Raises
    ------
    UsageError : it is not a folder, or cannot be read.
    """
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}")
    files: list[str] = []
    links: list[str] = []
    # A stack, not recursion: folders can be nested deeper than the interpreter calls.
    waiting = [("", str(root))]
    while waiting:
        prefix, folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    own = prefix + entry.name
                    if entry.name.startswith("."):
                        continue
                    if entry.is_symlink():
                        if has_image_suffix(entry.name) or entry.is_dir():
                            links.append(own)
                    elif entry.is_dir():
                        waiting.append((f"{own}/", entry.path))
                    elif has_image_suffix(entry.name):
                        files.append(own)
        except OSError as error:
            raise UsageError(f"cannot list {error.filename or folder}: {error.strerror}") from None
    return Listing(root, tuple(sorted(files)), tuple(sorted(links)))
