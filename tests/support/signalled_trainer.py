"""Sends this process SIGTERM during a training, and twice within `HeldSignals`; prints what happened as JSON.

In a process of its own: a signal that is delivered late must not end the process that runs the tests.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

from skinlesion_cli.models.training.interruption import HeldSignals
from tests.training.test_loop import STEPS, batch, trainer


class Stopped(BaseException):
    """What the handler of this process raises."""


def stop(_number: int, _frame: object) -> None:
    raise Stopped


def signalled_training() -> dict[str, Any]:
    """SIGTERM while the third of four batches is made."""
    saved: list[int] = []

    def batches(_number: int, _size_px: int, first_step: int) -> Iterator[Any]:
        for step in range(first_step, STEPS):
            if step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch(step)

    stopped = False
    try:
        trainer({}, batches=batches, save=lambda t: saved.append(t.progress.step)).fit()
    except Stopped:
        stopped = True
    return {
        "stopped": stopped,
        "saved_after_steps": saved,
        "handler_restored": signal.getsignal(signal.SIGTERM) is stop,
    }


def signalled_twice() -> dict[str, Any]:
    """The second SIGTERM arrives while the first one is held."""
    held_first = stopped = False
    with HeldSignals() as held:
        os.kill(os.getpid(), signal.SIGTERM)
        held_first = held.pending == signal.SIGTERM
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Stopped:
            stopped = True
    return {"held_first": held_first, "stopped": stopped}


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    json.dump({"training": signalled_training(), "twice": signalled_twice()}, sys.stdout)
