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
    """

    def __init__(self, folder: Path, known: Iterable[str] = ()) -> None:
        self.folder = folder
        self.passed_over: Counter[str] = Counter()
        self._known = set(known)
        self._last: dict[str, _Signature] = {}
        self._done: dict[str, _Signature] = {}
        self.changed: list[str] = []

    def look(self) -> list[ImageInput]:
        """The images that are complete since the last look, in the order of their names.

        Files that changed after they were handed out are named in `changed`, and are not handed out again.

        Raises
        ------
        OSError : the folder itself cannot be read.
        """
        present = _signatures(self.folder)
        sources: list[ImageInput] = []
        self.changed = []
        for name in sorted(present):
            signature = present[name]
            if name in self._done:
                if self._done[name] != signature:
                    self._done[name] = signature
                    self.changed.append(name)
            elif self._last.get(name) == signature and signature[0]:
                self._done[name] = signature
                if identity(name) not in self._known:
                    path = self.folder / name
                    frames = below(identity(name), path, sniff(path), self.passed_over)
                    sources += [frame for frame in frames if frame.id not in self._known]
        self._last = present
        return sources

    @property
    def waiting(self) -> int:
        """Files that were there at the last look, and have not been handed out."""
        return len(self._last.keys() - self._done.keys())


def _signatures(folder: Path) -> dict[str, _Signature]:
    """Size in bytes and time of change in ns of the files below a folder, by path below it with `/`."""
    found: dict[str, _Signature] = {}
    waiting = [(os.fspath(folder), "")]
    while waiting:
        place, prefix = waiting.pop()
        try:
            entries = list(os.scandir(place))
        except OSError:
            if not prefix:
                raise
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
