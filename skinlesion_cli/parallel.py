"""Work in order and within bounds: several threads ahead of whoever takes the results."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Done = TypeVar("Done")


def in_order(
    items: Iterable[Item], work: Callable[[Item], Done], *, threads: int, ahead: int | None = None
) -> Iterator[Done]:
    """What `work` makes of each item, in the order of the items.

    At most `ahead` items (default: one more than there are threads) are taken before their results are asked
    for, so memory does not grow with their number. An exception of `work` is raised at its item's turn.
    """
    iterator = iter(items)
    bound = ahead or threads + 1
    pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="predict")
    waiting: deque[Future[Done]] = deque()
    try:
        for item in islice(iterator, bound):
            waiting.append(pool.submit(work, item))
        while waiting:
            done = waiting.popleft().result()
            for item in islice(iterator, 1):
                waiting.append(pool.submit(work, item))
            yield done
    finally:
        # On an interruption nobody waits for work that nobody will take.
        pool.shutdown(wait=False, cancel_futures=True)


def in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of at most `size` items."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def available_cores() -> int:
    """Cores that this process may use, by affinity where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
