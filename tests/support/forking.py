"""`skinlesion` in a process of its own, without the seconds in which a new interpreter imports everything.

One process per test run has imported what commands use, and forks itself for every command. The child gets
arguments, folder, environment and standard streams from whoever asks, runs `skinlesion_cli.cli.app.main`, and
ends as any interpreter does. What tests show about imports needs a new interpreter, not this.

    python -m tests.support.forking SOCKET          # serves until its standard input ends

Only where processes can be forked and descriptors sent (`AVAILABLE`).
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence

AVAILABLE = hasattr(os, "fork") and hasattr(os, "pidfd_open")
# Long enough for any request.
_MOST_BYTES = 1_000_000


def call(
    server: str, arguments: Sequence[str], cwd: str, environment: Mapping[str, str], streams: Sequence[int]
) -> int:
    """Run one command; its exit code, negative if a signal ended it."""
    request = {"arguments": list(arguments), "cwd": cwd, "environment": dict(environment)}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MOST_BYTES)
        connection.connect(server)
        socket.send_fds(connection, [json.dumps(request).encode()], list(streams))
        return int(connection.recv(64))


def _import_all() -> None:
    """What commands import, except onnxruntime and OpenVINO: they start threads, which no fork keeps."""
    import importlib
    import pkgutil

    import albumentations
    import pandas
    import scipy.stats
    import sklearn.linear_model
    import timm
    import torch
    import torchvision

    import skinlesion_cli

    del albumentations, pandas, scipy, sklearn, timm, torch, torchvision
    for module in pkgutil.walk_packages(skinlesion_cli.__path__, "skinlesion_cli."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def _run(request: dict, streams: Sequence[int]) -> None:
    """Become the command; returns through SystemExit."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    sys.argv = ["skinlesion", *request["arguments"]]
    from skinlesion_cli.cli.app import main

    main()


def _leave(code: object) -> None:
    """End as the interpreter does: threads, exit functions, streams. What is loaded is not taken apart."""
    if not isinstance(code, int | None):
        sys.stderr.write(f"{code}\n")
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code or 0)


def _supervise(connection: socket.socket) -> None:
    """Fork the command, end it if whoever asked is gone, and answer with its exit code."""
    content, streams, _, _ = socket.recv_fds(connection, _MOST_BYTES, 3)
    request = json.loads(content)
    child = os.fork()
    if child == 0:
        connection.close()
        try:
            _run(request, streams)
        except SystemExit as ended:
            _leave(ended.code)
        _leave(None)
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(child)
    ready, _, _ = select.select([ended, connection], [], [])
    if ended not in ready:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    try:
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())
    finally:
        os._exit(0)


def serve(path: str) -> None:
    """Serve until standard input ends, which it does when the test run does."""
    _import_all()
    # What is there now is never collected: no child has to copy it.
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.bind(path)
    server.listen()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        ready, _, _ = select.select([server, 0], [], [])
        if 0 in ready:
            os._exit(0)
        connection, _ = server.accept()
        if os.fork() == 0:
            server.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            _supervise(connection)
            return
        connection.close()


if __name__ == "__main__":
    serve(sys.argv[1])
