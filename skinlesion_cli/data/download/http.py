"""One look at a file on a server, and one try to get it, through `huggingface_hub`'s client.

`http_get` resumes with a range request and writes as the bytes come. It is not a documented interface: its
major version is pinned, and the tests put it before a server with every fault.
"""

from __future__ import annotations

import errno
import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from skinlesion_cli.errors import SkinLesionError
from skinlesion_cli.progress import Task

_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG})


@dataclass(frozen=True)
class Patience:
    """How long to try. Waits double from `first_wait_s` to `longest_wait_s`; `timeout_s` is for one answer."""

    tries: int = 5
    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0
    timeout_s: float = 20.0
    chunk_bytes: int = 1 << 18
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Remote:
    """A file on a server; `validator` (entity tag or date) changes when the file does."""

    url: str
    size_bytes: int | None
    validator: str | None


class Unreachable(Exception):
    """This try failed at this address; another one may work."""


class Changed(Exception):
    """What was fetched so far does not belong to the file that the server has now."""


def get_rest(remote: Remote, file: CountedFile, have: int) -> None:
    """Get the bytes from `have` on and write them to `file`; without ranges, all of it from its start.

    Raises
    ------
    Unreachable, Changed : this try failed; what has come is in the file.
    SkinLesionError : the disk is full or cannot be written.
    """
    from huggingface_hub.file_download import http_get

    headers = {"Accept-Encoding": "identity"}
    if remote.validator:
        # `http_get` goes on by itself when a line is cut. Where the file has changed meanwhile, the server
        # then answers with all of it instead of the rest. Without a range the header means nothing.
        headers["If-Range"] = remote.validator
    try:
        http_get(
            remote.url,
            file,  # type: ignore[arg-type]
            resume_size=have,
            headers=headers,
            expected_size=remote.size_bytes,
            _nb_retries=0,  # of tries that bring nothing; for those, waiting is done by the caller
        )
    except _client_errors() as error:
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            raise SkinLesionError(
                f"cannot write {remote.url.rpartition('/')[2]}: {error.strerror}",
                "Free some space or choose another --workspace, then run the same command again: it goes on "
                "where it was.",
            ) from error
        if getattr(getattr(error, "response", None), "status_code", None) == 416:
            raise Changed("the server has no such range") from None
        raise Unreachable(_reason(error)) from None


def look(url: str, patience: Patience) -> Remote:
    """Ask for a file's size and its validator (entity tag or date) without fetching it."""
    from huggingface_hub.utils import get_session

    try:
        answer = get_session().head(url, timeout=patience.timeout_s, headers={"Accept-Encoding": "identity"})
    except _client_errors() as error:
        raise Unreachable(_reason(error)) from None
    if answer.status_code in (405, 501):
        return Remote(url, None, None)  # no HEAD here: fetched in one go
    if answer.status_code != 200:
        raise Unreachable(f"the server answers {answer.status_code}")
    size = answer.headers.get("Content-Length", "")
    tag = answer.headers.get("ETag", "")
    # A weak tag ("W/...") does not guarantee equal bytes, so it cannot guard a range.
    validator = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")
    return Remote(url, int(size) if size.isdigit() else None, validator)


def status(url: str, patience: Patience) -> int:
    """The HTTP status with which the server answers, whatever it is.

    Raises
    ------
    Unreachable : no answer came.
    """
    from huggingface_hub.utils import get_session

    try:
        return int(get_session().head(url, timeout=patience.timeout_s).status_code)
    except _client_errors() as error:
        raise Unreachable(_reason(error)) from None


def _reason(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"the server answers {status}"
    return f"{type(error).__name__}: {error}".splitlines()[0][:200].rstrip(": ")


def _client_errors() -> tuple[type[Exception], ...]:
    """What a request can raise; the HTTP client beneath huggingface_hub differs between its versions."""
    from huggingface_hub.utils import get_session

    module = importlib.import_module(type(get_session()).__module__.partition(".")[0])
    return (OSError, module.HTTPError)


@contextmanager
def client_settings(patience: Patience) -> Iterator[None]:
    """Small pieces, so that little is lost when a line is cut, and none of the client's own talk."""
    from huggingface_hub import constants
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
        logging,
    )

    before = (constants.DOWNLOAD_CHUNK_SIZE, constants.HF_HUB_DOWNLOAD_TIMEOUT, logging.get_verbosity())
    shown = not are_progress_bars_disabled()
    if shown:
        disable_progress_bars()
    constants.DOWNLOAD_CHUNK_SIZE = patience.chunk_bytes
    constants.HF_HUB_DOWNLOAD_TIMEOUT = patience.timeout_s  # type: ignore[assignment]
    logging.set_verbosity_error()
    try:
        yield
    finally:
        constants.DOWNLOAD_CHUNK_SIZE, constants.HF_HUB_DOWNLOAD_TIMEOUT = before[:2]
        logging.set_verbosity(before[2])
        if shown:
            enable_progress_bars()


class CountedFile:
    """A file that tells a progress bar what is written to it, and keeps nothing back from the disk."""

    def __init__(self, file: IO[bytes], task: Task) -> None:
        self.file, self.task = file, task

    def write(self, data: bytes) -> int:
        count = self.file.write(data)
        self.file.flush()
        self.task.advance(len(data) / 1e6)
        return count

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)
