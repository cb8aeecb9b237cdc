"""Finding the image file that a row of a table means, however its name is written."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path, PurePosixPath

from skinlesion_cli.data.reading.kinds import has_image_suffix
from skinlesion_cli.data.reading.listing import list_images
from skinlesion_cli.data.sources.base import published_id
from skinlesion_cli.errors import DataError, name_items


class ImageFinder:
    """Files below one folder, by the names that tables give them.

    A name is a path relative to the folder, or the file's name alone wherever in it the file lies; case and
    the suffix may differ, and ids of ISIC 2019 may lack `_downsampled`, or have it where the file does not.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.relocated: list[str] = []
        self._directories: dict[PurePosixPath, dict[str, list[str]]] = {}
        self._ambiguous: dict[str, list[str]] = {}

    def find(self, image: str) -> str | None:
        """The file's path relative to the folder; None where there is none, or no single one.

        Leading folders that are not there are passed over (the table was written on another machine, or in
        the folder above); such images are listed in `relocated`. Nothing outside of the folder is ever found.
        """
        relative = PurePosixPath(image.strip().replace("\\", "/"))
        parts = [part for part in relative.parts if part != "/" and not part.endswith(":")]
        if not parts or ".." in parts:
            return None
        for start in range(len(parts)):
            candidates = self._candidates(PurePosixPath(*parts[start:]))
            if candidates or self._directory(PurePosixPath(parts[start])) is not None:
                break
        if len(candidates) > 1:
            self._ambiguous[image] = candidates
        if len(candidates) != 1:
            return None
        if start or len(parts) != len(relative.parts):
            self.relocated.append(image)
        return candidates[0]

    def _candidates(self, relative: PurePosixPath) -> list[str]:
        """Files that a relative path means, or a name alone anywhere below the folder."""
        # Not Path.is_file: that raises for a name too long for the file system.
        if os.path.isfile(self.folder / relative):
            return [str(relative)]
        parent = self._directory(relative.parent)
        names = [] if parent is None else _matches(self._names(parent), relative.name)
        if names and parent is not None:
            return [str(parent / name) for name in names]
        return _matches(self._below, relative.name) if len(relative.parts) == 1 else []

    def refuse_ambiguous(self) -> None:
        """Raise a DataError if a name that was looked for means several files."""
        if self._ambiguous:
            named = [f"{image} ({' or '.join(files[:3])})" for image, files in self._ambiguous.items()]
            raise DataError(
                f"these images could be several files: {name_items(named)}",
                "Write the file's whole path, relative to the folder of the images.",
            )

    @cached_property
    def _below(self) -> dict[str, list[str]]:
        """Files anywhere below the folder, by each name that they answer to."""
        return _index((file, PurePosixPath(file).name) for file in list_images(self.folder).files)

    def _names(self, directory: PurePosixPath) -> dict[str, list[str]]:
        if directory not in self._directories:
            try:
                names = sorted(os.listdir(self.folder / directory))
            except OSError:
                names = []
            images = [name for name in names if not name.startswith(".") and has_image_suffix(name)]
            self._directories[directory] = _index((name, name) for name in images)
        return self._directories[directory]

    def _directory(self, wanted: PurePosixPath) -> PurePosixPath | None:
        """A sub-folder by its path in any case; None where there is none, or more than one."""
        found = PurePosixPath()
        for part in wanted.parts:
            if os.path.isdir(self.folder / found / part):
                found /= part
                continue
            try:
                same = [
                    name for name in os.listdir(self.folder / found) if name.casefold() == part.casefold()
                ]
            except OSError:
                return None
            if len(same) != 1:
                return None
            found /= same[0]
        return found


def _index(files: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """`(value, file name)` pairs as key -> values; the keys of a name are those of `_keys`."""
    index: dict[str, list[str]] = defaultdict(list)
    for value, name in files:
        for key in dict.fromkeys(_keys(name)):
            index[key].append(value)
    return index


def _keys(name: str) -> tuple[str, str, str]:
    """What a file answers to: its whole name, its name without suffix, and that without ISIC 2019's ending.

    A suffix is that of an image: the part after the last dot of any other name belongs to it.
    """
    whole = name.casefold()
    path = PurePosixPath(whole)
    stem = path.stem if has_image_suffix(path.name) else whole
    return whole, f"{stem}.", f"{published_id(stem)}.."


def _matches(index: dict[str, list[str]], name: str) -> list[str]:
    """The files that a name means: those of the closest kind of match that has any."""
    return next((index[key] for key in _keys(name) if key in index), [])
