"""The one thread pool, the one count of cores that this process may use, and the threads of libraries.

`in_order` runs work on several threads and yields the results in the order of the items, with bounded memory.
`ReadAhead` takes the items of a slow source, such as names that arrive on stdin, in a thread of its own, so
that a result is handed on when it is finished and not when the next name arrives. `available_cores` respects
the process's CPU affinity and the CPU limits of its container. `library_threads` keeps numpy, scikit-learn
and torch from starting threads of their own where a command works on several images side by side.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from statistics import median
from threading import Event, Semaphore, Thread
from time import sleep
from typing import Final, Generic, TypeVar

from skinlesion_cli.errors import UsageError

Item = TypeVar("Item")
Done = TypeVar("Done")

_PROCESS_CGROUPS: Final = Path("/proc/self/cgroup")
_LOAD: Final = Path("/proc/loadavg")
_CGROUPS: Final = Path("/sys/fs/cgroup")


class ReadAhead(Generic[Item]):
    """Iterates over items that a thread of its own takes from `items`, in their order.

    Parameters
    ----------
    items : any iterable; it is only ever advanced by that thread. An exception that it raises is raised here,
        after the items before it.
    ahead : at most so many items are taken before they are asked for.
    """

    def __init__(self, items: Iterable[Item], ahead: int) -> None:
        self._items = items
        self._free = Semaphore(ahead)
        self._taken: SimpleQueue[tuple[Item | None, BaseException | None]] = SimpleQueue()
        self._stopped = Event()
        self._ended = False
        # A daemon: it may wait for a name that never comes, and no process should wait for that to end.
        Thread(target=self._take_all, name="read-ahead", daemon=True).start()

    def _take_all(self) -> None:
        try:
            iterator = iter(self._items)
            while True:
                self._free.acquire()
                if self._stopped.is_set():
                    return
                self._taken.put((next(iterator), None))
        except BaseException as error:  # StopIteration among them: the end of the items
            self._taken.put((None, error))

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        """The next item, waiting for it."""
        items = self.take(1)
        if not items:
            raise StopIteration
        return items[0]

    def take(self, most: int, *, timeout_s: float | None = None) -> list[Item]:
        """Up to `most` items that are there, waiting for the first of them.

        An empty list means the end of the items, or that the first took longer than `timeout_s`.
        """
        items: list[Item] = []
        while len(items) < most and not self._ended:
            try:
                item, error = self._taken.get(timeout=0.0 if items else timeout_s)
            except Empty:
                break
            if error is not None:
                self._ended = True
                if isinstance(error, StopIteration):
                    break
                if items:
                    # Those before it come first.
                    self._ended = False
                    self._taken.put((None, error))
                    break
                raise error
            self._free.release()
            items.append(item)  # type: ignore[arg-type]
        return items

    def close(self) -> None:
        """Take no further items."""
        self._stopped.set()
        self._free.release()


def in_order(
    items: Iterable[Item], work: Callable[[Item], Done], *, threads: int, ahead: int | None = None
) -> Iterator[Done]:
    """The result of `work` for each item, in the order of the items.

    At most `ahead` items (default: one more than there are threads) are taken before their results are asked
    for, so memory does not grow with their number; a result that is finished never waits for a further item.
    An exception raised by `work` is raised at its item's turn.
    """
    pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="in-order")
    try:
        submitted: Iterator[Future[Done]] = (pool.submit(work, item) for item in items)
        with closing(ReadAhead(submitted, ahead or threads + 1)) as futures:
            for future in futures:
                yield future.result()
    finally:
        # After an interruption nobody waits for work whose results nobody will take.
        pool.shutdown(wait=False, cancel_futures=True)


def in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of at most `size` items."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def available_cores() -> int:
    """Cores that this process may use, at least 1:
    by its CPU affinity and the CPU limits of its container.
    """
    cores, limit = affinity_cores(), container_cores()
    return cores if limit is None else max(1, min(cores, int(limit)))


def started_processes(name: str) -> int:
    """How many processes torchrun, or another launcher, says that it has started: 1 where it says nothing.

    Parameters
    ----------
    name : the variable that it sets: WORLD_SIZE for all machines, LOCAL_WORLD_SIZE for this one.

    Raises
    ------
    UsageError : it is no count.
    """
    text = os.environ.get(name, "1")
    if not (text.isascii() and text.isdigit() and int(text)):
        raise UsageError(
            f"the environment variable {name} is no number of processes: {text!r}",
            "torchrun and accelerate launch set it; unset it otherwise.",
        )
    return int(text)


@contextmanager
def library_threads(count: int) -> Iterator[None]:
    """Within the block, libraries that are loaded compute with so many threads, unless the user chose.

    Images side by side with one thread each finish sooner than one image on all cores, and take their share
    of a busy machine: threads that compute one thing together wait for the slowest of them in every step.
    Waiting, they sleep: by default they would keep cores busy that other programs need.
    """
    wanted = {"OMP_NUM_THREADS": str(count), "OMP_WAIT_POLICY": "PASSIVE"}
    ours = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def busy_cores(*, samples: int = 5, pause_s: float = 0.02) -> float | None:
    """Threads of other programs that want a core now: the median of a few samples; None where the system does
    not say (it is Linux that does).
    """
    counts = []
    for _ in range(samples):
        try:
            running = _LOAD.read_text("ascii").split()[3].partition("/")[0]
            # The one that reads is running too.
            counts.append(max(int(running) - 1, 0))
        except (OSError, ValueError, IndexError):
            return None
        sleep(pause_s)
    return float(median(counts))


def affinity_cores() -> int:
    """Cores that the system schedules this process on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def container_cores() -> float | None:
    """CPU time per second that the process's control groups allow it, in cores (Linux); None without a limit.

    The lowest limit of its groups and of those above them, version 1 (`cpu.cfs_quota_us`) and 2 (`cpu.max`).
    """
    try:
        lines = _PROCESS_CGROUPS.read_text("utf-8").splitlines()
    except (OSError, ValueError):
        lines = []
    limits = [_limit_of(_CGROUPS)]
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        # Version 2 names no controllers. A container may see the paths of its host:
        # what is not there has no limit.
        mounts = (
            [_CGROUPS, _CGROUPS / "unified"]
            if not controllers
            else [_CGROUPS / controllers, _CGROUPS / "cpu"]
        )
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in mounts:
            own = mount / path.strip("/")
            limits += [_limit_of(folder) for folder in (own, *own.parents) if folder.is_relative_to(mount)]
    return min((limit for limit in limits if limit is not None), default=None)


def _limit_of(group: Path) -> float | None:
    """The limit of one control group, in cores."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text("ascii").split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text("ascii")
            period = (group / "cpu.cfs_period_us").read_text("ascii")
        # `max` in version 2 and -1 in version 1 stand for no limit.
        return int(quota) / int(period) if int(quota) > 0 and int(period) > 0 else None
    except (OSError, ValueError):
        return None
