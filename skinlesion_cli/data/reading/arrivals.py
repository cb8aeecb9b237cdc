"""Files that arrive in a folder, each once it is complete.

The folder is looked at again and again: notices of changes, as operating systems send them, do not come from
network shares, which is where cameras put their photographs.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from skinlesion_cli.data.reading.folders import sniff
from skinlesion_cli.data.reading.inputs import ImageInput, below, identity

# Names under which programs write what they have not finished.
UNFINISHED = (".part", ".partial", ".filepart", ".crdownload", ".tmp", ".temp", ".download", ".!ut")
_Signature = tuple[int, int]


class Arrivals:
    """Images that arrive below a folder; each is handed out once.

    A file is complete when its size and modification time are the same in two checks in a row, and it
    is not empty. Hidden files, links, and names that end like those of unfinished downloads are skipped.

    Parameters
    ----------
    known : ids that were handed out before, as a table of predictions has them.
    known_until_ns : when the last of them was recorded, in ns since the epoch; None: at an unknown time.

    Attributes
    ----------
    passed_over : files that are no images, by kind.
    changed : files found changed by the last look after they had been handed out; those that changed before
        the first look too, as far as `known_until_ns` tells. They are not handed out again.
    unreadable : folders below the folder that could not be read at the last look, and why.
    """

    def __init__(self, folder: Path, known: Iterable[str] = (), known_until_ns: int | None = None) -> None:
        self.folder = folder
        self.passed_over: Counter[str] = Counter()
        self.changed: list[str] = []
        self.unreadable: dict[str, str] = {}
        self._known = set(known)
        self._known_until_ns = known_until_ns
        self._last: dict[str, _Signature] = {}
        self._done: dict[str, _Signature] = {}
        self._no_images: dict[str, _Signature] = {}

    def look(self) -> list[ImageInput]:
        """The images that are complete since the last look, in the order of their names.

        Raises
        ------
        OSError : the folder itself cannot be read.
        """
        self.unreadable = {}
        present = _signatures(self.folder, self.unreadable)
        sources: list[ImageInput] = []
        self.changed = []
        for name in sorted(present):
            signature = present[name]
            if name in self._done:
                if self._done[name] != signature:
                    self._done[name] = signature
                    self.changed.append(name)
            elif (
                self._last.get(name) == signature and signature[0] and self._no_images.get(name) != signature
            ):
                sources += self._complete(name, signature)
        self._last = present
        return sources

    def _complete(self, name: str, signature: _Signature) -> list[ImageInput]:
        """What a file that is complete gives; it is looked at again only where it is no image and changes."""
        path = self.folder / name
        if identity(name) in self._known:
            self._done[name] = signature
            if self._known_until_ns is not None and _changed_at_ns(path) > self._known_until_ns:
                self.changed.append(name)
            return []
        passed_over: Counter[str] = Counter()
        frames = list(below(identity(name), path, sniff(path), passed_over))
        if frames:
            self._done[name] = signature
        else:
            # A table that grows is one file.
            self.passed_over += passed_over if name not in self._no_images else Counter()
            self._no_images[name] = signature
        return [frame for frame in frames if frame.id not in self._known]

    @property
    def waiting(self) -> int:
        """Files that were there at the last look, and have not been handed out."""
        return len(self._last.keys() - self._done.keys() - self._no_images.keys())


def _changed_at_ns(path: Path) -> int:
    """When a file was written, or put under its name: a copy may keep the modification time of its source."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:  # it has just gone
        return 0
    return max(status.st_mtime_ns, status.st_ctime_ns)


def _signatures(folder: Path, unreadable: dict[str, str]) -> dict[str, _Signature]:
    """Size in bytes and time of change in ns of the files below a folder, by path below it with `/`.

    `unreadable` gets the folders below it that cannot be read.
    """
    found: dict[str, _Signature] = {}
    waiting = [(os.fspath(folder), "")]
    while waiting:
        place, prefix = waiting.pop()
        try:
            entries = list(os.scandir(place))
        except OSError as error:
            if not prefix:
                raise
            if not isinstance(error, FileNotFoundError):  # it has just gone
                unreadable[prefix.rstrip("/")] = error.strerror or str(error)
            continue
        for entry in entries:
            name = entry.name
            if name.startswith(".") or name.lower().endswith(UNFINISHED) or entry.is_symlink():
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((entry.path, f"{prefix}{name}/"))
                elif entry.is_file(follow_symlinks=False):
                    # Not the entry's own record, which may be old on Windows.
                    status = os.stat(entry.path, follow_symlinks=False)
                    found[f"{prefix}{name}"] = (status.st_size, status.st_mtime_ns)
            except OSError:  # it has just gone
                continue
    return found
