"""Reading ahead: images are decoded by threads while the network works, in order and within bounds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Source = TypeVar("Source")
Loaded = TypeVar("Loaded")


def read_ahead(
    sources: Iterable[Source], load: Callable[[Source], Loaded], *, threads: int, ahead: int
) -> Iterator[tuple[Source, Loaded]]:
    """Each source with what `load` made of it, in the order of the sources.

    At most `ahead` are loaded before they are asked for, so memory does not grow with their number. `load`
    must not raise: it returns what failed as a value.
    """
    iterator = iter(sources)
    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="read") as pool:
        waiting: deque[tuple[Source, Future[Loaded]]] = deque()
        try:
            for source in islice(iterator, ahead):
                waiting.append((source, pool.submit(load, source)))
            while waiting:
                source, future = waiting.popleft()
                loaded = future.result()
                for following in islice(iterator, 1):
                    waiting.append((following, pool.submit(load, following)))
                yield source, loaded
        finally:
            for _, future in waiting:
                future.cancel()


def in_batches(items: Iterable[Source], size: int) -> Iterator[list[Source]]:
    """Lists of at most `size` items."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
