"""Two artifacts that belong together are replaced together, though a process may be killed between them.

Before the first is replaced, its files are copied aside. A copy that is found by the next run was left by a
run that was killed: the copy is put back unless the second artifact was already made from the new first one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from skinlesion_cli.artifacts.envelope import payload_files
from skinlesion_cli.artifacts.files import atomic_write
from skinlesion_cli.errors import ArtifactError

_FOLDER = "before-append"


@contextmanager
def restorable(path: Path) -> Iterator[None]:
    """Within the block the artifact may be replaced; `restore` puts it back if the block was not finished."""
    folder = path.parent / _FOLDER
    for file in (*payload_files(path), path):  # the envelope last: with it the copy is complete
        folder.mkdir(exist_ok=True)
        atomic_write(folder / file.name, file.read_bytes())
    yield
    _discard(folder, path.name)


def restore(path: Path, fits: Callable[[], object]) -> None:
    """Finish what a killed run left of `restorable(path)`.

    Parameters
    ----------
    fits : raises an ArtifactError if the second artifact was not made from the first as it is now.
    """
    folder = path.parent / _FOLDER
    if (folder / path.name).exists():
        try:
            fits()
        except ArtifactError:
            for file in (*payload_files(folder / path.name), folder / path.name):
                atomic_write(path.with_name(file.name), file.read_bytes())
    _discard(folder, path.name)


def _discard(folder: Path, envelope: str) -> None:
    # First the envelope: what is left without it is no copy.
    (folder / envelope).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
