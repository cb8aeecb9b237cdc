"""Memory of the process: keeping what was freed, telling when it runs out, and how much was used."""

from __future__ import annotations

import contextlib
import ctypes
import sys

import torch

# What torch says on a CPU and on MPS, where the error has no type of its own.
_SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory")

# Numbers of glibc's <malloc.h>.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_KEEP_BYTES = 2**31 - 1
_GROW_BYTES = 1 << 28


def keep_freed_memory() -> bool:
    """Let this process reuse the memory of freed tensors; False where the C library is not glibc.

    By default every large tensor is a fresh mapping: the kernel zeroes its pages on first touch, at every step
    anew, which costs a training step of a light network on a CPU a good part of its time. In return, memory
    that is free between two steps is not given back to the system.
    """
    if not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _KEEP_BYTES), (_M_TOP_PAD, _GROW_BYTES))
        return all([mallopt(name, value) == 1 for name, value in settings])
    return False


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
