"""Data-parallel training: the processes that train one network together, usually just one.

They are started by `train` itself on several GPUs, by `accelerate launch` or `torchrun`. Every process
holds the whole network and takes its share of each batch; gradients are averaged, so the weights are the same
in all of them. Batch norm computes its statistics from the share of its own process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from skinlesion_cli.errors import SkinLesionError, UsageError
from skinlesion_cli.models.devices import resolve_device
from skinlesion_cli.parallel import started_processes

T = TypeVar("T")


class Distributed:
    """A single process; the base class of the case with several."""

    rank = 0
    size = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network to call in training: its gradients are averaged over all processes."""
        return network

    def mean(self, value: float) -> float:
        """Mean of a number over all processes."""
        return value

    def gather(self, array: np.ndarray) -> np.ndarray:
        """The arrays of all processes, concatenated along the first axis in rank order."""
        return array

    def agree_on(self, make: Callable[[], T]) -> T:
        """Call `make` in the first process; every process gets its result, or raises its error."""
        return make()

    def share_buffers(self, network: nn.Module) -> None:
        """Copy the first process's buffers (running statistics of batch norm) to all processes."""


class _SeveralProcesses(Distributed):
    def __init__(self, cpu: bool) -> None:
        from accelerate import Accelerator

        self._accelerator = Accelerator(cpu=cpu, mixed_precision="no")
        self.rank, self.size = self._accelerator.process_index, self._accelerator.num_processes
        self.device = self._accelerator.device

    def wrap(self, network: nn.Module) -> nn.Module:
        return self._accelerator.prepare_model(network)

    def mean(self, value: float) -> float:
        from accelerate.utils import reduce

        # Apple's devices and some accelerators have no float64.
        return float(reduce(torch.tensor(value, dtype=torch.float32, device=self.device), "mean"))

    def gather(self, array: np.ndarray) -> np.ndarray:
        from accelerate.utils import gather_object

        return np.concatenate(gather_object([array]))

    def agree_on(self, make: Callable[[], T]) -> T:
        from accelerate.utils import broadcast_object_list

        outcome: list[Any] = [None, None]
        if self.is_first:
            try:
                outcome[0] = make()
            except SkinLesionError as error:
                outcome[1] = error
        outcome = broadcast_object_list(outcome)
        result: T = outcome[0]
        if outcome[1] is not None:
            raise outcome[1]
        return result

    def share_buffers(self, network: nn.Module) -> None:
        from accelerate.utils import broadcast

        for buffer in network.buffers():
            buffer.copy_(broadcast(buffer))


def join_processes(device_name: str) -> tuple[Distributed, torch.device]:
    """Join the processes that this one was started with; also returns the device to train on.

    Raises
    ------
    UsageError, SkinLesionError : see `resolve_device`;
        or several processes on a device that supports only one.
    """
    device = resolve_device(device_name)
    if started_processes("WORLD_SIZE") == 1:
        return Distributed(), device
    if device.type == "mps":
        raise UsageError(
            "several processes cannot train on one MPS device", "Use --device cpu, or one process."
        )
    distributed = _SeveralProcesses(cpu=device.type == "cpu")
    return distributed, distributed.device
