"""Opening files of a model that somebody else may have made: regular files only, never a link,
never without bound.

A FIFO would block, a device or a link to one would fill the memory, and a link could lead out of the folder.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from skinlesion_cli.errors import ArtifactError

_CHUNK_BYTES = 1 << 20
_PACKAGE_FOLDER = Path(__file__).resolve().parents[1]


@contextmanager
def open_regular(path: Path, most_bytes: int) -> Iterator[IO[bytes]]:
    """Open a file for reading that is a regular one and has at most so many bytes.

    Links are followed only inside the installed package, where some installers make them.

    Raises
    ------
    FileNotFoundError : it is not there.
    ArtifactError : it is a link, a folder, a FIFO or a device, is too large, or may not be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if _PACKAGE_FOLDER not in path.absolute().parents:
        flags |= getattr(os, "O_NOFOLLOW", 0)
        if path.is_symlink():
            raise _refused(path, "a link")
    try:
        descriptor = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(errno.ENOENT, "No such file", str(path)) from None
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be read: {error.strerror or error}", "Check its permissions."
        ) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise _refused(path, "not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        if status.st_size > most_bytes:
            raise ArtifactError(
                f"{path.name} has {status.st_size:,} bytes, which is too large: at most {most_bytes:,} "
                "are read"
            )
        yield file


def read_regular(path: Path, most_bytes: int) -> bytes:
    """The content of a regular file; errors as for `open_regular`."""
    with open_regular(path, most_bytes) as file:
        # A file that grows meanwhile is not read any further than was checked.
        return file.read(most_bytes)


def sha256_regular(path: Path, most_bytes: int) -> str:
    """Hexadecimal SHA-256 of a regular file, read in pieces; errors as for `open_regular`."""
    digest, left = hashlib.sha256(), most_bytes
    with open_regular(path, most_bytes) as file:
        while left > 0 and (chunk := file.read(min(_CHUNK_BYTES, left))):
            digest.update(chunk)
            left -= len(chunk)
    return digest.hexdigest()


def _refused(path: Path, what: str) -> ArtifactError:
    return ArtifactError(
        f"{path} is {what} and is not opened",
        "Artifacts are regular files inside their own folder; copy the file itself there.",
    )
