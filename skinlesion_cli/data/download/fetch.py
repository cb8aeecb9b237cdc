"""Fetching one file over HTTP so that it is whole, or not there.

Around the single request (`http.py`) lies what a download of gigabytes needs: whether what was fetched before still belongs to the file on the server, several addresses,
waiting between tries, and checking the file before it gets its final name.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from skinlesion_cli.artifacts.files import atomic_write
from skinlesion_cli.data.download.http import (
    Changed,
    CountedFile,
    Patience,
    Remote,
    Unreachable,
    client_settings,
    get_rest,
    look,
)
from skinlesion_cli.errors import DataError, SkinLesionError
from skinlesion_cli.progress import Reporter

# A try that brought at least this much counts as progress, and the tries are counted from the start again.
_PROGRESS_BYTES = 1 << 20


@dataclass(frozen=True)
class Expected:
    """What is known about a file before it is fetched.

    `size_bytes` and `md5` must fit; `unconfirmed_md5` only leads to a notice. `check` raises a DataError for a
    file whose content is wrong.
    """

    name: str
    size_bytes: int | None = None
    md5: str | None = None
    unconfirmed_md5: str | None = None
    sha256: str | None = None
    check: Callable[[Path], None] | None = None


@dataclass(frozen=True)
class Fetched:
    """A file that is whole: where it came from and its hashes."""

    path: Path
    url: str
    size_bytes: int
    sha256: str
    md5: str
    notes: tuple[str, ...] = field(default=())


def remote_size(urls: Sequence[str], patience: Patience) -> int | None:
    """Size in bytes as the first address that answers states it; None where nobody says."""
    with client_settings(patience):
        for url in urls:
            try:
                return look(url, patience).size_bytes
            except Unreachable:
                continue
    return None


def fetch(
    expected: Expected, urls: Sequence[str], folder: Path, reporter: Reporter, patience: Patience
) -> Fetched:
    """Fetch a file to `folder/expected.name`; it has that name only when it is whole and checked.

    What an earlier call left in `NAME.part` is continued where the server still has the same file.

    Raises
    ------
    DataError : every address has a file of the wrong size, hash or content; nothing of it is kept.
    SkinLesionError : no address answers, or the disk is full (what was fetched is kept for the next time).
    """
    part = folder / f"{expected.name}.part"
    folder.mkdir(parents=True, exist_ok=True)
    if part.is_symlink():
        _discard(part)  # whoever put it there, nothing is written to where it leads
    failures: dict[str, str] = {}
    wrong: dict[str, list[DataError]] = {url: [] for url in urls}
    tries = 0
    with client_settings(patience):
        while tries < patience.tries:
            # A bad file may have been put together from two versions, so every address gets a second chance.
            for url in [url for url in urls if len(wrong[url]) < 2]:
                before = _size(part)
                try:
                    return _try_address(expected, url, part, reporter, patience)
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
                if _size(part) - before >= _PROGRESS_BYTES:
                    tries = 0
            if all(len(errors) == 2 for errors in wrong.values()):
                raise wrong[urls[0]][0]
            tries += 1
            if tries < patience.tries:
                patience.sleep(min(patience.first_wait_s * 2 ** (tries - 1), patience.longest_wait_s))
    raise SkinLesionError(
        f"{expected.name} could not be fetched:\n"
        + "\n".join(f"  {url}: {reason}" for url, reason in failures.items()),
        "What was fetched so far is kept; run the same command again to go on.",
    )


def _try_address(expected: Expected, url: str, part: Path, reporter: Reporter, patience: Patience) -> Fetched:
    remote = look(url, patience)
    if expected.size_bytes and remote.size_bytes and remote.size_bytes != expected.size_bytes:
        raise DataError(
            f"{expected.name} has {remote.size_bytes:,} bytes on the server, expected {expected.size_bytes:,}"
        )
    have = _continuable(part, remote)
    total = remote.size_bytes
    title = f"{expected.name} (the rest of it)" if have else expected.name
    with (
        reporter.task(title, total=(total - have) / 1e6 if total else None, unit="MB") as task,
        part.open("r+b" if have else "wb") as file,
    ):
        file.seek(have)
        _write_note(part, remote)
        if total is None or have < total:
            get_rest(remote, CountedFile(file, task), have)
        os.fsync(file.fileno())
    if total is not None and _size(part) != total:
        raise Changed(f"{_size(part):,} bytes came, {total:,} were announced")
    with reporter.task(f"checking {expected.name}"):
        return _accept(expected, url, part)


def _accept(expected: Expected, url: str, part: Path) -> Fetched:
    """Check a whole file and give it its final name."""
    fetched = examine(expected, part, url)
    final = part.with_name(expected.name)
    os.replace(part, final)
    _note_file(part).unlink(missing_ok=True)
    return Fetched(final, url, fetched.size_bytes, fetched.sha256, fetched.md5, fetched.notes)


def examine(expected: Expected, path: Path, url: str) -> Fetched:
    """Check a file on disk against what is known about it.

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
    for what, found, wanted in (
        ("size", str(size_bytes), str(expected.size_bytes) if expected.size_bytes else None),
        ("md5", md5.hexdigest(), expected.md5),
        ("sha256", sha256.hexdigest(), expected.sha256),
    ):
        if wanted is not None and found != wanted:
            raise DataError(
                f"{expected.name} has {what} {found}, expected {wanted}",
                "If the file was replaced on purpose, --ignore-hashes accepts it; its content is still checked.",
            )
    if expected.unconfirmed_md5 and md5.hexdigest() != expected.unconfirmed_md5:
        notes.append(
            f"{expected.name} has md5 {md5.hexdigest()}; a third party once noted {expected.unconfirmed_md5}"
        )
    if expected.check is not None:
        expected.check(path)
    return Fetched(path, url, size_bytes, sha256.hexdigest(), md5.hexdigest(), tuple(notes))


def _continuable(part: Path, remote: Remote) -> int:
    """Bytes on disk that may be continued at this address; 0 after removing what may not.

    Half a file from another address is continued if the sizes agree: the checks at the end see the whole.
    """
    have = _size(part)
    if have == 0:
        return 0
    try:
        known = json.loads(_note_file(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    same_file = known.get("url") != remote.url or known.get("validator") == remote.validator
    if remote.size_bytes is None or known.get("size_bytes") != remote.size_bytes or not same_file:
        raise Changed("the file on the server is not the one that was begun")
    if have > remote.size_bytes:
        raise Changed("more bytes than the file has")
    return have


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _note_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _write_note(part: Path, remote: Remote) -> None:
    known: Mapping[str, object] = {
        "url": remote.url,
        "size_bytes": remote.size_bytes,
        "validator": remote.validator,
    }
    atomic_write(_note_file(part), json.dumps(known).encode())


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note_file(part).unlink(missing_ok=True)
