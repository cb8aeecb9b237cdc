"""What a user names, as a stream of image files with ids that never collide."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from skinlesion_cli.data.images import IMAGE_SUFFIXES
from skinlesion_cli.errors import UsageError


@dataclass(frozen=True)
class ImageInput:
    """`id` is the path below the folder that was named (with `/`), or the file as it was named."""

    id: str
    path: Path


def expand(named: Sequence[str], listed: Iterable[str] = ()) -> Iterator[ImageInput]:
    """Images below the folders and files named, then those of a list; folders in sorted order.

    Symbolic links below a folder are not followed. With more than one folder, ids begin with its name.

    Raises
    ------
    UsageError : a folder or file that was named is not there.
    """
    folders = [name for name in named if Path(name).is_dir()]
    for name in named:
        path = Path(name)
        if path.is_dir():
            prefix = PurePosixPath(path.resolve().name) if len(folders) > 1 else PurePosixPath()
            for file in _below(path):
                yield ImageInput(str(prefix / PurePosixPath(*file.relative_to(path).parts)), file)
        elif path.exists():
            yield ImageInput(name, path)
        else:
            raise UsageError(f"there is no file or folder {name}")
    for line in listed:
        if line:
            yield ImageInput(line, Path(line))


def _below(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if entry.is_symlink():
            continue
        if entry.is_dir():
            yield from _below(Path(entry.path))
        elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
            yield Path(entry.path)
