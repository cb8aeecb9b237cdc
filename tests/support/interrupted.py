"""Runs the command as the console script does, and sends SIGTERM when it first calls PLACE.

    python tests/support/interrupted.py PLACE ARGUMENT ...

The signal goes to all processes of the command, as that of `timeout` does, where it leads a group of its own;
otherwise to its first process. In a process of its own: a signal that comes at a bad moment must not end the
one that runs the tests.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

import pytest

from skinlesion_cli.cli.app import main

sent = threading.Lock()


def send_once(*_: object, **__: object) -> float:
    # Once: a second signal ends the process at once.
    if sent.acquire(blocking=False):
        leads = os.getpgrp() == os.getpid()
        (os.killpg if leads else os.kill)(os.getpid(), signal.SIGTERM)
    return 1.0  # a step of the training is finished first: this is its loss


pytest.MonkeyPatch().setattr(f"skinlesion_cli.{sys.argv[1]}", send_once)
sys.argv[:2] = ["skinlesion"]
main()
