"""A server on 127.0.0.1 in place of the official one, with every fault that a download can meet.

Faults are queued for a path, and each GET request uses up one; when the queue is empty the server behaves
well. It also answers as a proxy does, whatever host it is asked for.
"""

from __future__ import annotations

import gzip
import hashlib
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


class OfficialServer(ThreadingHTTPServer):
    """`files` maps a name to its content; `requests` holds (method, name, Range header or None)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, deque[Callable[[_Handler, str], Any] | str]] = defaultdict(deque)
        self.requests: list[tuple[str, str, str | None]] = []
        self.sent_bytes: dict[str, int] = defaultdict(int)
        self.cut_after_bytes = 0
        self.chunk_delay_s = 0.0
        self.etags = True
        self.head_allowed = True
        self.redirects: dict[str, str] = {}
        self.bytes_lock = threading.Lock()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/data/"

    def gets(self, name: str) -> list[str | None]:
        """Range headers of the GET requests for a file, in order."""
        return [ranged for method, path, ranged in self.requests if method == "GET" and path == name]

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that leave are part of the tests


class _Handler(BaseHTTPRequestHandler):
    server: OfficialServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        name = self._arrive()
        if name is not None and not self.server.head_allowed:
            self._fail(405)
        elif name is not None:
            self._head(200, len(self.server.files[name]), self.server.files[name])

    def do_GET(self) -> None:
        name = self._arrive()
        if name is None:
            return
        fault = self.server.faults[name].popleft() if self.server.faults[name] else "good"
        if callable(fault):
            fault = fault(self, name)
        content = self.server.files[name]
        start = self._range_start(content)
        if fault == "ignore_range":
            start = 0
        if fault == "503":
            return self._fail(503)
        if fault == "416":
            return self._fail(416)
        if fault == "silent":
            time.sleep(3)
            self.close_connection = True
            return None
        if fault == "gzip":
            return self._compressed(name, content)
        if fault == "no_length":
            return self._without_length(name, content)
        if fault == "no_length_no_end":
            return self._without_length(name, content, times=1000)
        if fault == "trickle":
            self._head(206 if start else 200, len(content) - start, content, start)
            return self._trickle(content[start:])
        if fault == "trickle_header":
            return self._trickle(b"HTTP/1.1 200 OK\r\n" + b"X-Slow: yes\r\n" * 1000)
        if fault == "five_terabytes":
            return self._head(200, 5_000_000_000_000, content)
        if fault == "other_range":
            return self._head(206, len(content) - start, content, start + 1)
        if fault == "wrong_offset" and start:
            self._head(206, len(content) - start, content, start)
            return self._send(name, content[:1] * (len(content) - start))
        length = len(content) - start
        if fault == "too_long":
            length += 1000
        self._head(206 if start else 200, length, content, start)
        body = content[start:]
        if fault == "cut":
            body = body[: self.server.cut_after_bytes]
            self.close_connection = True
        if fault == "too_long":
            body += b"x" * 1000
        if fault == "flipped":
            body = body[:-40] + bytes([body[-40] ^ 1]) + body[-39:]
        return self._send(name, body)

    def _arrive(self) -> str | None:
        # A proxy is sent the whole address.
        name = urlsplit(self.path).path.removeprefix("/data/")
        self.server.requests.append((self.command, name, self.headers.get("Range")))
        if name in self.server.redirects:
            self.send_response(302)
            self.send_header("Location", self.server.redirects[name])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        if name not in self.server.files:
            self._fail(404)
            return None
        return name

    def _range_start(self, content: bytes) -> int:
        ranged = self.headers.get("Range")
        condition = self.headers.get("If-Range")
        if not ranged or (condition and condition != _etag(content)):
            return 0
        return int(ranged.removeprefix("bytes=").removesuffix("-"))

    def _head(self, status: int, length: int, content: bytes, start: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Accept-Ranges", "bytes")
        if self.server.etags:
            self.send_header("ETag", _etag(content))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()

    def _send(self, name: str, body: bytes) -> None:
        for begin in range(0, len(body), 16384):
            piece = body[begin : begin + 16384]
            self.wfile.write(piece)
            with self.server.bytes_lock:
                self.server.sent_bytes[name] += len(piece)
            if self.server.chunk_delay_s:
                time.sleep(self.server.chunk_delay_s)

    def _compressed(self, name: str, content: bytes) -> None:
        body = gzip.compress(content)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self._send(name, body)

    def _without_length(self, name: str, content: bytes, times: int = 1) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        for _ in range(times):
            self._send(name, content)

    def _trickle(self, body: bytes) -> None:
        """A few bytes now and then, for at most ten seconds."""
        self.close_connection = True
        for byte in body[:500]:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(0.02)

    def _fail(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _etag(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'
