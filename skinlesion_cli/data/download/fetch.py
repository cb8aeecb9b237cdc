"""Downloading one file so that it is complete and verified, or not there.

Around the single request (`http.py`): resuming what an earlier run began, several addresses, waiting between
attempts, and verifying the file before it gets its final name.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from io import FileIO
from pathlib import Path

import httpx2

from skinlesion_cli.artifacts.files import atomic_write, replace_file
from skinlesion_cli.data.download.http import (
    Body,
    Changed,
    Patience,
    Remote,
    Unreachable,
    open_client,
    request_file,
    stated_size,
)
from skinlesion_cli.errors import DataError, SkinLesionError
from skinlesion_cli.progress import Reporter

# An attempt that brought this many bytes, or this share of the file, is progress: attempts are counted anew.
_PROGRESS_BYTES = 1 << 20
_PROGRESS_SHARE = 0.1
_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG})


@dataclass(frozen=True)
class Expected:
    """What is known about a file before it is downloaded.

    `size_bytes` and the hashes `md5` and `sha256` must match; a different `unconfirmed_md5` is only a notice.
    A file of more than `limit_bytes` is refused. `check` raises a DataError
    for a file whose content is wrong.
    """

    name: str
    size_bytes: int | None = None
    limit_bytes: int | None = None
    md5: str | None = None
    unconfirmed_md5: str | None = None
    sha256: str | None = None
    check: Callable[[Path], None] | None = None


@dataclass(frozen=True)
class Fetched:
    """A file that is complete: where it came from and its hashes."""

    path: Path
    url: str
    size_bytes: int
    sha256: str
    md5: str
    notes: tuple[str, ...] = field(default=())


def remote_size(urls: Sequence[str], patience: Patience) -> int | None:
    """Size in bytes that the first address to answer states; None if none does."""
    with open_client(patience) as client:
        for url in urls:
            try:
                return stated_size(client, url, patience)
            except Unreachable:
                continue
    return None


def fetch(
    expected: Expected, urls: Sequence[str], folder: Path, reporter: Reporter, patience: Patience
) -> Fetched:
    """Download a file to `folder/expected.name`; it has that name only when it is complete and verified.

    What an earlier call left in `NAME.part` is continued if the server still has the same file.

    Raises
    ------
    DataError : every address has a file of the wrong size, hash or content; nothing of it is kept.
    SkinLesionError : no address answers, or the disk has too little space (what was downloaded is kept).
    """
    part = folder / f"{expected.name}.part"
    folder.mkdir(parents=True, exist_ok=True)
    if part.is_symlink():
        _discard(part)  # whoever created it: nothing is written through a link
    failures: dict[str, str] = {}
    wrong: dict[str, list[DataError]] = {url: [] for url in urls}
    tries = 0
    with open_client(patience) as client:
        while tries < patience.tries:
            # A wrong file may have been put together from two versions,
            # so every address gets a second chance.
            for url in [url for url in urls if len(wrong[url]) < 2]:
                before = _size(part)
                try:
                    return _try_address(expected, url, part, reporter, patience, client)
                except Changed as change:
                    _discard(part)
                    reporter.note(f"{expected.name}: {change}; starting again")
                    failures[url] = str(change)
                except Unreachable as failure:
                    if failures.get(url) != str(failure):
                        reporter.note(f"{url}: {failure}")
                    failures[url] = str(failure)
                except DataError as error:
                    _discard(part)
                    reporter.note(f"{url}: {error.message}; the bad file was removed")
                    failures[url] = error.message
                    wrong[url].append(error)
                if _is_progress(part, _size(part) - before):
                    tries = 0
            if all(len(errors) == 2 for errors in wrong.values()):
                raise wrong[urls[0]][0]
            tries += 1
            if tries < patience.tries:
                patience.sleep(min(patience.first_wait_s * 2 ** (tries - 1), patience.longest_wait_s))
    raise SkinLesionError(
        f"{expected.name} could not be downloaded:\n"
        + "\n".join(f"  {url}: {reason}" for url, reason in failures.items()),
        "What was downloaded so far is kept; run the same command again to resume.",
    )


def _is_progress(part: Path, gained_bytes: int) -> bool:
    known = _begun(part)
    total = known.size_bytes if known else None
    return gained_bytes >= min(_PROGRESS_BYTES, total * _PROGRESS_SHARE if total else _PROGRESS_BYTES)


def _try_address(
    expected: Expected, url: str, part: Path, reporter: Reporter, patience: Patience, client: httpx2.Client
) -> Fetched:
    have, begun = _size(part), _begun(part)
    if have and (begun is None or begun.size_bytes is None):
        raise Changed("it is not known which file the part on disk belongs to")
    if begun is None or have != begun.size_bytes:
        validator = begun.validator if begun is not None and begun.url == url else None
        with request_file(client, url, patience, start=have, validator=validator) as body:
            if body.start and begun is not None:
                _require_same(begun, body.remote)
            elif have:
                reporter.note(f"{expected.name}: the server sends the whole file; starting again")
            _receive(expected, body, part, reporter)
    with reporter.task(f"checking {expected.name}"):
        return _accept(expected, url, part)


def _require_same(begun: Remote, remote: Remote) -> None:
    """Half a file from another address may be continued if the sizes agree:
    the final checks see the whole file.
    """
    same_version = begun.url != remote.url or begun.validator == remote.validator
    if remote.size_bytes != begun.size_bytes or not same_version:
        raise Changed("the file on the server is not the one that was begun")


def _receive(expected: Expected, body: Body, part: Path, reporter: Reporter) -> None:
    """Write the body to the part on disk; what has arrived stays there if the connection is cut."""
    total, start = body.remote.size_bytes, body.start
    limit_bytes = _limit_bytes(expected, body, part)
    title = f"{expected.name} (the rest of it)" if start else expected.name
    try:
        with (
            reporter.task(title, total=(total - start) / 1e6 if total else None, unit="MB") as task,
            # Unbuffered: every byte that arrived is on disk when the connection is cut.
            part.open("r+b" if part.exists() else "wb", buffering=0) as file,
        ):
            file.seek(start)
            file.truncate()
            _write_note(part, body.remote)
            received = start
            for chunk in body.chunks():
                received += len(chunk)
                if received > limit_bytes:
                    raise DataError(f"{expected.name}: the server sends more than {limit_bytes:,} bytes")
                _write_all(file, chunk)
                task.advance(len(chunk) / 1e6)
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        raise SkinLesionError(
            f"cannot write {part.name}: {error.strerror}",
            "Free some space or choose another --workspace, then run the same command again to resume.",
        ) from error
    if total is not None and received != total:
        raise Changed(f"{received:,} bytes were received, {total:,} were expected")


def _limit_bytes(expected: Expected, body: Body, part: Path) -> int:
    """Size in bytes that the file may have.

    Raises
    ------
    DataError : the server states a wrong size.
    SkinLesionError : the disk has too little space.
    """
    total = body.remote.size_bytes
    room = shutil.disk_usage(part.parent).free + body.start
    if total is not None:
        if expected.size_bytes and total != expected.size_bytes:
            raise DataError(
                f"{expected.name} has {total:,} bytes on the server, expected {expected.size_bytes:,}"
            )
        if expected.limit_bytes and total > expected.limit_bytes:
            raise DataError(
                f"{expected.name} has {total:,} bytes on the server, expected at most "
                f"{expected.limit_bytes:,}"
            )
        if total > room:
            raise SkinLesionError(
                f"{expected.name} has {total / 1e9:,.1f} GB on the server, and {room / 1e9:,.1f} GB are "
                "free in "
                f"{part.parent}",
                "Free some space or choose another --workspace.",
            )
        return total
    return min(expected.size_bytes or expected.limit_bytes or room, room)


def _write_all(file: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _accept(expected: Expected, url: str, part: Path) -> Fetched:
    """Verify a complete file and give it its final name."""
    fetched = examine(expected, part, url)
    final = part.with_name(expected.name)
    replace_file(part, final)
    _note_file(part).unlink(missing_ok=True)
    return Fetched(final, url, fetched.size_bytes, fetched.sha256, fetched.md5, fetched.notes)


def examine(expected: Expected, path: Path, url: str) -> Fetched:
    """Verify a file on disk against what is known about it, and compute its hashes.

    Raises
    ------
    DataError : size, hash or content are wrong.
    """
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            md5.update(chunk)
            sha256.update(chunk)
    notes: list[str] = []
    size_bytes = path.stat().st_size
    for what, actual, wanted in (
        ("size", str(size_bytes), str(expected.size_bytes) if expected.size_bytes else None),
        ("md5", md5.hexdigest(), expected.md5),
        ("sha256", sha256.hexdigest(), expected.sha256),
    ):
        if wanted is not None and actual != wanted:
            raise DataError(
                f"{expected.name} has {what} {actual}, expected {wanted}",
                "If the file was replaced on purpose, --ignore-hashes accepts it; its content is still "
                "verified.",
            )
    if expected.unconfirmed_md5 and md5.hexdigest() != expected.unconfirmed_md5:
        notes.append(
            f"{expected.name} has md5 {md5.hexdigest()}; a third party recorded {expected.unconfirmed_md5}"
        )
    if expected.check is not None:
        expected.check(path)
    return Fetched(path, url, size_bytes, sha256.hexdigest(), md5.hexdigest(), tuple(notes))


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _note_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _begun(part: Path) -> Remote | None:
    """The file that the part on disk belongs to; None if that is not known."""
    try:
        note = json.loads(_note_file(part).read_text(encoding="utf-8"))
        url, size_bytes, validator = note["url"], note["size_bytes"], note["validator"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    known = isinstance(url, str) and isinstance(size_bytes, int | None) and isinstance(validator, str | None)
    return Remote(url, size_bytes, validator) if known else None


def _write_note(part: Path, remote: Remote) -> None:
    note: Mapping[str, object] = asdict(remote)
    atomic_write(_note_file(part), json.dumps(note).encode())


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note_file(part).unlink(missing_ok=True)
