"""One HTTP request at a time, bounded in time and in bytes,
through httpx2 (the maintained successor of httpx).

Proxies and certificates come from the environment (`HTTPS_PROXY`, `NO_PROXY`, `SSL_CERT_FILE`), redirects are
followed, and files are requested uncompressed.
"""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2

from skinlesion_cli import __version__
from skinlesion_cli.errors import SkinLesionError


@dataclass(frozen=True)
class Patience:
    """How long to keep trying.

    `tries` is the number of attempts in a row without progress; the waits between them double from
    `first_wait_s` to `longest_wait_s`. `timeout_s` limits the wait for the next bytes, `answer_s` the wait
    for the header of an answer. A body that comes at less than `slowest_bytes_per_s`
    for `rate_window_s` seconds is abandoned.
    """

    tries: int = 5
    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0
    timeout_s: float = 20.0
    answer_s: float = 60.0
    slowest_bytes_per_s: float = 1_000.0
    rate_window_s: float = 30.0
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Remote:
    """A file on a server; `validator` (entity tag or date) changes when the file does."""

    url: str
    size_bytes: int | None
    validator: str | None


class Unreachable(Exception):
    """This attempt failed at this address; another one may succeed."""


class Changed(Exception):
    """The bytes on disk do not belong to the file that the server has now."""


@contextmanager
def open_client(patience: Patience) -> Iterator[httpx2.Client]:
    """A client for several requests.

    Raises
    ------
    SkinLesionError : the proxy settings of the environment cannot be used.
    """
    try:
        client = httpx2.Client(
            follow_redirects=True,
            timeout=patience.timeout_s,
            headers={"Accept-Encoding": "identity", "User-Agent": f"skinlesion/{__version__}"},
        )
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        raise SkinLesionError(
            f"the proxy settings of the environment cannot be used: {error}",
            "Correct or unset HTTP_PROXY, HTTPS_PROXY and ALL_PROXY.",
        ) from None
    with client:
        yield client


def status(client: httpx2.Client, url: str, patience: Patience) -> int:
    """The HTTP status with which the server answers.

    Raises
    ------
    Unreachable : there is no answer.
    """
    with _transport_errors():
        response = _send(client, client.build_request("HEAD", url), patience)
        response.close()
        return response.status_code


def stated_size(client: httpx2.Client, url: str, patience: Patience) -> int | None:
    """Size in bytes that the server states for a file; None if it states none.

    Raises
    ------
    Unreachable : there is no answer, or no such file.
    """
    with _transport_errors():
        response = _send(client, client.build_request("HEAD", url), patience)
        response.close()
    if response.status_code in (405, 501):
        return None  # this server does not support HEAD
    if response.status_code != 200:
        raise Unreachable(f"the server answers {response.status_code}")
    return _number(response.headers.get("Content-Length", ""))


class Body:
    """The body of an answer: bytes of the file `remote` from `start` on."""

    def __init__(self, response: httpx2.Response, remote: Remote, start: int, patience: Patience) -> None:
        self.remote, self.start = remote, start
        self._response, self._patience = response, patience

    def chunks(self) -> Iterator[bytes]:
        """The bytes as they arrive.

        Raises
        ------
        Unreachable : the connection was cut, is silent, or is too slow.
        """
        patience = self._patience
        window_started, window_bytes = time.monotonic(), 0
        with _transport_errors():
            # No chunk size: httpx2 would wait for a whole chunk before anybody could measure the rate.
            for chunk in self._response.iter_raw():
                yield chunk
                window_bytes += len(chunk)
                elapsed_s = time.monotonic() - window_started
                if elapsed_s >= patience.rate_window_s:
                    if window_bytes < patience.slowest_bytes_per_s * elapsed_s:
                        raise Unreachable(f"only {window_bytes / elapsed_s:.0f} bytes per second arrive")
                    window_started, window_bytes = time.monotonic(), 0


@contextmanager
def request_file(
    client: httpx2.Client, url: str, patience: Patience, *, start: int = 0, validator: str | None = None
) -> Iterator[Body]:
    """Request a file from byte `start` on, provided that it still has this validator.

    The body starts at 0 instead if the server sends the whole file: it does not support ranges,
    or the file changed.

    Raises
    ------
    Unreachable : this attempt failed.
    Changed : the server has no such range of the file.
    """
    headers = {}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator:
            headers["If-Range"] = validator
    with _transport_errors():
        response = _send(client, client.build_request("GET", url, headers=headers), patience)
    try:
        yield _body(response, url, start, patience)
    finally:
        with _transport_errors():
            response.close()


def _body(response: httpx2.Response, url: str, start: int, patience: Patience) -> Body:
    if response.status_code == 416:
        raise Changed("the server has no such range")
    if response.status_code not in (200, 206) or (response.status_code == 206 and not start):
        raise Unreachable(f"the server answers {response.status_code}")
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise Unreachable(f"the server sends the file compressed ({encoding[:40]}), which was not requested")
    tag = response.headers.get("ETag", "")
    # Weak tags ("W/...") do not guarantee equal bytes, so they cannot protect a range.
    validator = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")
    if response.status_code == 200:
        size = _number(response.headers.get("Content-Length", ""))
        return Body(response, Remote(url, size, validator), 0, patience)
    given = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if given is None or int(given[1]) != start:
        raise Changed("the server sends another range than was requested")
    return Body(response, Remote(url, _number(given[2]), validator), start, patience)


def _send(client: httpx2.Client, request: httpx2.Request, patience: Patience) -> httpx2.Response:
    """Send a request and wait for the header of the answer.

    In a thread of its own, since timeouts of the client restart with every byte: a header that trickles would
    hold the program for hours.
    """
    outcome: queue.SimpleQueue[httpx2.Response | Exception] = queue.SimpleQueue()

    def send() -> None:
        try:
            outcome.put(client.send(request, stream=True))
        except Exception as error:
            outcome.put(error)

    threading.Thread(target=send, daemon=True, name="request").start()
    try:
        answer = outcome.get(timeout=patience.answer_s)
    except queue.Empty:
        raise Unreachable(f"no answer within {patience.answer_s:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


@contextmanager
def _transport_errors() -> Iterator[None]:
    """Failures of the connection as `Unreachable`."""
    try:
        yield
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
        raise Unreachable(f"{type(error).__name__}: {error}".splitlines()[0][:200].rstrip(": ")) from None


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
