"""Finding image files in a folder, without following where links lead."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from skinlesion_cli.data.reading.images import IMAGE_SUFFIXES
from skinlesion_cli.errors import UsageError


@dataclass(frozen=True)
class Listing:
    """`files` are relative POSIX paths, sorted by code point; `links` were found and not followed."""

    root: Path
    files: tuple[str, ...]
    links: tuple[str, ...]


def list_images(root: Path) -> Listing:
    """Image files beneath a folder by their suffix, sub-folders included; the same order on every machine.

    Hidden files and folders, and links to files or folders, are left out: a link can lead out of the folder
    or in circles.

    Raises
    ------
    UsageError : it is no folder, or cannot be read.
    """
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}")
    files: list[str] = []
    links: list[str] = []

    def fail(error: OSError) -> None:
        raise UsageError(f"cannot list {error.filename}: {error.strerror}")

    for folder, subfolders, names in os.walk(root, onerror=fail):
        here = Path(folder)
        links += [
            (here / name).relative_to(root).as_posix() for name in subfolders if (here / name).is_symlink()
        ]
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            path = here / name
            if name.startswith(".") or path.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            (links if path.is_symlink() else files).append(path.relative_to(root).as_posix())
    return Listing(root, tuple(sorted(files)), tuple(sorted(links)))
