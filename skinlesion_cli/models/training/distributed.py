"""The processes that train one network together, started by `accelerate launch` or `torchrun`; usually one.

Every process holds the whole network and takes its share of each batch; gradients are averaged, so the
weights are the same everywhere. Batch norm looks at a process's own share alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from skinlesion_cli.errors import SkinLesionError, UsageError
from skinlesion_cli.models.devices import resolve_device

T = TypeVar("T")


class Distributed:
    """One process alone: nothing to share and nobody to wait for."""

    rank = 0
    size = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network as it is to be called in training, so that gradients are averaged over the team."""
        return network

    def mean(self, value: float) -> float:
        """Mean of a number over the team."""
        return value

    def gather(self, array: np.ndarray) -> np.ndarray:
        """The arrays of all processes, joined along the first axis in the order of the processes."""
        return array

    def agree_on(self, make: Callable[[], T]) -> T:
        """What the first process makes, in every process; an error of its making is raised in every one."""
        return make()

    def share_buffers(self, network: nn.Module) -> None:
        """Give every process the first one's buffers (running means of batch norm)."""


class _Several(Distributed):
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

        made: list[Any] = [None, None]
        if self.is_first:
            try:
                made[0] = make()
            except SkinLesionError as error:
                made[1] = error
        found, failure = broadcast_object_list(made)
        if failure is not None:
            raise failure
        return found

    def share_buffers(self, network: nn.Module) -> None:
        from accelerate.utils import broadcast

        for buffer in network.buffers():
            buffer.copy_(broadcast(buffer))


def join_team(device_name: str) -> tuple[Distributed, torch.device]:
    """The team that this process was started in, and the device it is to use.

    Raises
    ------
    UsageError, SkinLesionError : see `resolve_device`; or a team on a device that knows no teams.
    """
    device = resolve_device(device_name)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Distributed(), device
    if device.type == "mps":
        raise UsageError(
            "several processes cannot train on one MPS device", "Use --device cpu, or one process."
        )
    team = _Several(cpu=device.type == "cpu")
    return team, team.device
