"""Writing and hashing files so that no incomplete file ever has its final name."""

from __future__ import annotations

import glob
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from skinlesion_cli.errors import SkinLesionError

_CHUNK_BYTES = 1 << 20
# Windows replaces no file that any program has open. Together a little more than a second: as long as a virus
# scanner or an indexer holds a new file.
_PAUSES_S = (0.01, 0.05, 0.1, 0.25, 0.75) if os.name == "nt" else ()


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal SHA-256 of a byte string."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def atomic_file(path: Path, mode: str = "wb", *, durable: bool = True) -> Iterator[IO[Any]]:
    """Write to a temporary file beside `path`; it takes the final name only when all is on disk.

    On any error, an interruption included, the temporary file is removed and `path` is as before.
    With `durable=False` it does not wait for the disk: a file that a power cut takes can be made again.

    Raises
    ------
    SkinLesionError : the folder cannot be written, or the disk is full.
    """
    temporary: Path | None = None
    text = None if "b" in mode else "utf-8"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = _create_beside(path)
        with os.fdopen(handle, mode, encoding=text, newline="" if text else None) as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        replace_file(temporary, path)
        temporary = None
        if durable:
            _sync_folder(path.parent)
    except OSError as error:
        raise SkinLesionError(
            f"cannot write {path.name}: {error.strerror or error}",
            f"Check that {path.parent} is writable and has free space; the previous version is unchanged.",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def atomic_write(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a byte string under its final name in one step."""
    with atomic_file(path, durable=durable) as file:
        file.write(data)


def replace_file(source: Path, target: Path) -> None:
    """Give a file or folder another name in one step; a file of that name is replaced.

    Windows refuses while any program has either open: it is tried again for about a second.

    Raises
    ------
    OSError : as of `os.replace`.
    """
    for pause_s in _PAUSES_S:
        try:
            os.replace(source, target)
        except PermissionError:
            time.sleep(pause_s)
        else:
            return
    os.replace(source, target)


def remove_unfinished(folder: Path, prefix: str) -> None:
    """Remove what a process that was killed while it wrote a file of this name (or its beginning)
    has left.
    """
    for temporary in folder.glob(f".{glob.escape(prefix)}.*.tmp"):
        temporary.unlink(missing_ok=True)


def _create_beside(path: Path) -> tuple[int, Path]:
    """A new, hidden file beside `path`, open for writing, with the permissions of any new file.

    Not `tempfile.mkstemp`: its files are for their owner alone, and which permissions others are to have can
    only be asked for by changing the umask, which all threads share, for a moment.
    """
    # With O_EXCL a link planted under the name is not followed.
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        with suppress(FileExistsError):
            return os.open(temporary, flags, 0o666), temporary


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(folder: Path, purpose: str) -> Iterator[None]:
    """Hold `folder` for one process; a second one fails at once with the name of the one that holds it.

    The operating system frees the lock when the process ends, however it ends. Its file is removed while the
    lock is held: filelock takes no lock on a file that was unlinked since it was opened.
    """
    path = folder / f".{purpose}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    if path.is_symlink():
        # Opening it would create or truncate whatever it points to.
        raise SkinLesionError(
            f"the lock {path} is a link and is not followed",
            "Remove the link if you know where it comes from.",
        )
    lock = FileLock(path, timeout=0)
    holder = folder / f".{purpose}.holder"
    try:
        lock.acquire()
    except Timeout:
        try:
            who = holder.read_text(encoding="utf-8")
        except OSError:  # it has just left, or has not written it yet
            who = "another process"
        raise SkinLesionError(
            f"{folder} is in use by {who} ({purpose})",
            "Wait for it to finish, or choose another folder.",
        ) from None
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        remove_unfinished(folder, holder.name)
        atomic_write(holder, f"process {os.getpid()}".encode())
        yield
    finally:
        # Windows removes no file that is open; there filelock removes it when it is released.
        for file in (holder, path):
            with suppress(OSError):
                file.unlink(missing_ok=True)
        lock.release()


def _unwritable(folder: Path, error: OSError) -> SkinLesionError:
    return SkinLesionError(
        f"cannot write in {folder}: {error.strerror or error}",
        "Check that it can be written and has free space, or choose another folder.",
    )
