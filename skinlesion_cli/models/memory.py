"""Running out of memory: how to tell, and how much was used."""

from __future__ import annotations

import sys

import torch

# What torch says on a CPU and on MPS, where the error has no type of its own.
_SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this error means that a smaller batch may fit."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def peak_memory_bytes(device: torch.device) -> int | None:
    """The most memory used so far: of the GPU, or of this process on a CPU; None where nobody counts."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024
