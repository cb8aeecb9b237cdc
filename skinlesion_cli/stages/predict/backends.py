"""Distributes chunks to workers: threads of this process, processes of this machine,
or a cluster through joblib.

Whatever does the work, predictions come back in the order of the inputs.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from skinlesion_cli.errors import SkinLesionError, UsageError
from skinlesion_cli.inference.prediction import Prediction
from skinlesion_cli.parallel import ReadAhead, available_cores, in_order
from skinlesion_cli.stages.predict.worker import Numbered, Plan, Worker, predictions_of

BACKENDS = ("threads", "local", "dask", "ray")
Predictions = list[Prediction]
# Chunks that travel together: one message is a few seconds of work.
_CHUNKS_PER_MESSAGE = 4
# Chunks that are read before a worker is free for them; a chunk is no more than the names of its images.
_CHUNKS_AHEAD = 256
_PATIENCE_S = 0.02
_RETRIES = 3
# Messages that ray gets at once: few at first, so that rows come soon.
_RAY_FIRST_WAVE, _RAY_WAVE = 4, 64


def by_threads(
    worker: Worker, chunks: Iterable[Sequence[Numbered]], threads: int | None
) -> Iterator[Predictions]:
    """Decoding, networks and writing side by side in this process."""
    yield from in_order(chunks, worker.predict, threads=threads or available_cores())


def by_processes(
    plan: Plan,
    chunks: Iterable[Sequence[Numbered]],
    *,
    backend: str,
    workers: int | None,
    address: str | None,
    note: Callable[[str], None],
) -> Iterator[Predictions]:
    """Through joblib. A worker that dies costs the chunks that it held, which are predicted again.

    Raises
    ------
    UsageError : the backend is unknown or not installed, or `dask` has no address of a scheduler.
    SkinLesionError : workers died again and again.
    """
    from joblib import delayed

    plan = _portable(plan)
    # In the order of their answers.
    unanswered: deque[list[Sequence[Numbered]]] = deque()
    failures = 0
    with _joblib_backend(backend, address) as name, closing(ReadAhead(chunks, _CHUNKS_AHEAD)) as ready:
        n_jobs = workers or (available_cores() if name == "loky" else -1)

        def burst(messages: list[list[Sequence[Numbered]]]) -> Iterator[Any]:
            for message in messages:
                yield delayed(predictions_of)(plan, message)
            # joblib takes the next task before it hands on an answer. So that no answer waits for an input
            # that is yet to come, tasks end here when none is there, and the next burst waits for one. (Ray's
            # answers come in waves anyway, and its processes last as long as a burst.)
            patience_s = None if name == "ray" else _PATIENCE_S
            while message := ready.take(_CHUNKS_PER_MESSAGE, timeout_s=patience_s):
                unanswered.append(message)
                yield delayed(predictions_of)(plan, message)

        while True:
            messages = list(unanswered) or [first for first in [ready.take(_CHUNKS_PER_MESSAGE)] if first]
            if not messages:
                return
            # All of them at once: workers may die again before joblib has taken the last.
            unanswered = deque(messages)
            try:
                for answer in _answers(name, n_jobs, burst(messages)):
                    unanswered.popleft()
                    failures = 0
                    yield from answer
            except Exception as error:
                if isinstance(error, SkinLesionError) or not _is_death_of_a_worker(error):
                    raise
                failures += 1
                if failures > _RETRIES:
                    raise SkinLesionError(
                        f"workers died {failures} times in a row: {error}",
                        "Check that memory suffices (or use fewer --workers), then run again with --resume.",
                    ) from error
                note(f"a worker died ({type(error).__name__}); its images are predicted again")


def _answers(name: str, n_jobs: int, tasks: Iterator[Any]) -> Iterator[list[Predictions]]:
    from joblib import Parallel, parallel_config

    # Ray's backend hands back lists only: wave after wave, so that memory stays bounded.
    return_as = "list" if name == "ray" else "generator"
    # Ray would fill one machine before it takes the next.
    options = {"ray_remote_args": {"scheduling_strategy": "SPREAD"}} if name == "ray" else {}
    with parallel_config(backend=name, n_jobs=n_jobs, **options):
        parallel = Parallel(return_as=return_as, pre_dispatch="2*n_jobs", batch_size=1)
    if name != "ray":
        yield from parallel(tasks)
        return
    # Entered, it keeps its processes, and with them the networks that they have loaded, from wave to wave.
    with parallel:
        size = _RAY_FIRST_WAVE
        while wave := list(islice(tasks, size)):
            yield from parallel(wave)
            size = min(2 * size, _RAY_WAVE)


def _is_death_of_a_worker(error: Exception) -> bool:
    return type(error).__name__ in (
        "TerminatedWorkerError",
        "BrokenProcessPool",
        "KilledWorker",
        "ActorDiedError",
        "ActorUnavailableError",
        "NodeDiedError",
        "WorkerCrashedError",
    )


def _portable(plan: Plan) -> Plan:
    """The plan with absolute folders: a worker starts somewhere else."""
    from dataclasses import replace

    overlays = None if plan.overlays is None else plan.overlays.resolve()
    thumbnails = None if plan.thumbnails is None else plan.thumbnails.resolve()
    return replace(plan, workspace=plan.workspace.resolve(), overlays=overlays, thumbnails=thumbnails)


def _joblib_backend(backend: str, address: str | None) -> AbstractContextManager[str]:
    """The name under which joblib knows the backend, for the time of the `with` block."""
    if backend == "local":
        # Each process runs one thread: the cores are shared out already.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        return nullcontext("loky")
    if backend == "dask":
        if not address:
            raise UsageError(
                "--backend dask needs --address",
                "Start `dask scheduler`, then give --address tcp://HOST:8786.",
            )
        try:
            from distributed import Client
        except ImportError:
            raise UsageError(
                "dask is not installed", "Run `pip install 'skinlesion[dask]'` here and on the workers."
            ) from None
        return _Connected(
            lambda: Client(address, timeout="10s"), "dask", address, lambda client: client.close()
        )
    if backend == "ray":
        try:
            import ray
            from ray.util.joblib import register_ray
        except ImportError:
            raise UsageError("ray is not installed", "Run `pip install 'skinlesion[ray]'`.") from None
        register_ray()
        # No usage statistics: nothing about these images leaves the machine.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

        def connect() -> Any:
            _require_listener(address)
            return ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)

        return _Connected(
            connect,
            "ray",
            address,
            lambda _: ray.shutdown(),
        )
    raise UsageError(f"no backend named {backend!r}", "Backends: " + ", ".join(BACKENDS))


def _require_listener(address: str | None) -> None:
    """Check that a server listens at `HOST:PORT` or `ray://HOST:PORT`: ray itself takes minutes to give up.

    Raises
    ------
    OSError : none does.
    """
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


class _Connected(AbstractContextManager[str]):
    def __init__(
        self, connect: Callable[[], Any], name: str, address: str | None, leave: Callable[[Any], object]
    ) -> None:
        self.connect, self.name, self.address, self.leave = connect, name, address, leave
        self.client: Any = None

    def __enter__(self) -> str:
        try:
            self.client = self.connect()
        except (OSError, TimeoutError, ConnectionError, ValueError) as error:
            secret = " A Ray cluster with a token needs the same RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH here."
            raise SkinLesionError(
                f"no {self.name} cluster answers at {self.address or 'this machine'}: {error}",
                "Check the address, and that this machine can reach it."
                + (secret if self.name == "ray" else ""),
            ) from None
        return self.name

    def __exit__(self, *_: object) -> None:
        self.leave(self.client)


def absolute(paths: Iterable[Numbered]) -> Iterator[Numbered]:
    """The same inputs with absolute paths, for workers that start elsewhere."""
    from dataclasses import replace

    here = Path.cwd()
    for number, source in paths:
        yield number, replace(source, path=here / source.path)


def shard_of(batches: Iterable[Sequence[Numbered]], index: int, count: int) -> Iterator[Sequence[Numbered]]:
    """Every `count`-th batch, from the `index`-th (from 1)."""
    yield from islice(batches, index - 1, None, count)
