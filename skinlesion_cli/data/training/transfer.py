"""Copies from the CPU to the device that trains."""

from __future__ import annotations

import torch


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The CPU tensor on the device, from pinned memory where that is a CUDA GPU.

    A copy from other memory waits until the GPU has finished all the work it was given before. Pinned memory
    is not used again before its copy is finished: torch's allocator of it takes care of that.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
