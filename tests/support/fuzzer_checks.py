"""Targets with known defects, for a test of the fuzzer: what it says of each, as JSON on stdout.

A process of its own: the alarm that ends an execution that hangs is a signal, and libraries that other tests
have loaded may have left the process unable to take one.
"""

from __future__ import annotations

import json
import mmap
import random
import sys
import time

from skinlesion_cli.errors import DataError
from tests.fuzzing import run
from tests.fuzzing.targets import TARGETS


def fails(source: random.Random) -> None:
    if source.random() < 0.5:
        raise KeyError("odd")


def hangs(source: random.Random) -> None:
    time.sleep(10)


def grows(source: random.Random) -> None:
    # Not from the heap, where something else may have left room.
    with mmap.mmap(-1, 150_000_000) as block:
        for place in range(0, len(block), mmap.PAGESIZE):
            block[place] = 1


def refuses(source: random.Random) -> None:
    raise DataError("no")


def main() -> None:
    run.MOST_BYTES = 100_000_000
    found = {}
    for target in (fails, hangs, grows, refuses):
        name = target.__name__
        TARGETS[name] = target
        run.MOST_S = 0.5 if target is hangs else 20.0
        found[name] = vars(run.fuzz(60.0, names=[name], most=3))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
