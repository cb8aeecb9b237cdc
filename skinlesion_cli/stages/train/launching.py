"""One process for each GPU of this machine, where `train` is started as a single process."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

import torch

from skinlesion_cli.errors import ExitCode, SkinLesionError
from skinlesion_cli.progress import Reporter
from skinlesion_cli.stages.train.job import TrainSettings

_OF_ONE_GPU = "Train on one GPU to see why: CUDA_VISIBLE_DEVICES=0."
_TERMINATED = (int(ExitCode.TERMINATED), -signal.SIGTERM)


@dataclass(frozen=True)
class Launch:
    """A command line of `skinlesion`, and the number of processes that run it together."""

    arguments: tuple[str, ...]
    n_processes: int
    n_gpus: int
    batch_size: int


def launch_for(
    settings: TrainSettings, arguments: tuple[str, ...], environment: Mapping[str, str] = os.environ
) -> Launch | None:
    """The processes to start for this training; None where this process is to train by itself.

    It is, unless it was started alone on Linux and has several GPUs to use. Of these as many are used as can
    divide a batch equally.
    """
    if sys.platform != "linux" or "WORLD_SIZE" in environment or settings.device not in ("auto", "cuda"):
        return None
    n_gpus, batch_size = torch.cuda.device_count(), settings.recipe.batch_size
    n_processes = max((n for n in range(1, n_gpus + 1) if batch_size % n == 0), default=1)
    return Launch(arguments, n_processes, n_gpus, batch_size) if n_processes > 1 else None


def run_together(launch: Launch, reporter: Reporter) -> NoReturn:
    """Start the processes, wait for them, and end as the first of them ended. They print and write.

    SIGINT and SIGTERM are passed on, so that the training state is saved before they end.

    Raises
    ------
    SystemExit : with the exit code of the first process.
    SkinLesionError : another process failed, and the first one was ended for that reason.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    n, total, batch_size = launch.n_processes, launch.n_gpus, launch.batch_size
    others = "" if n == total else f" (batches of {batch_size} images cannot be divided by {total})"
    reporter.note(
        f"training on {n} of {total} GPUs{others}, one process each; the batch size is that of all of them. "
        "For one GPU: CUDA_VISIBLE_DEVICES=0"
    )
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=n,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    # It logs what the processes themselves say better.
    logging.disable(logging.ERROR)
    try:
        elastic_launch(config, sys.executable)("-m", "skinlesion_cli", *launch.arguments)
    except SignalException as signalled:
        raise SystemExit(128 + int(signalled.sigval)) from None
    except ChildFailedError as error:
        raise _ended(error.failures) from None
    finally:
        logging.disable(logging.NOTSET)
    raise SystemExit(0)


def _ended(failures: Mapping[int, object]) -> BaseException:
    codes = {rank: int(getattr(failure, "exitcode", 1)) for rank, failure in failures.items()}
    # When one has failed, the others are terminated; that says nothing about the cause.
    by_themselves = {rank: code for rank, code in codes.items() if code not in _TERMINATED} or codes
    rank, code = min(by_themselves.items())
    if rank == 0 and code > 0:
        return SystemExit(code)
    return SkinLesionError(
        f"process {rank} of the training was ended by signal {-code}"
        if code < 0
        else f"process {rank} of the training failed with exit code {code}",
        _OF_ONE_GPU,
    )
