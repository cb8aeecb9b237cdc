"""Memory of the process: reuse of freed memory, recognising out-of-memory errors, and peak use."""

from __future__ import annotations

import contextlib
import ctypes
import sys

import torch

from skinlesion_cli.errors import SkinLesionError

# Messages of torch on CPU and MPS, where running out of memory has no exception type of its own, and of
# CUDA's libraries, which allocate some memory themselves.
_SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory", "_status_alloc_failed")

# Numbers of glibc's <malloc.h>.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_KEEP_BYTES = 2**31 - 1
_GROW_BYTES = 1 << 28


def keep_freed_memory() -> bool:
    """Let this process reuse the memory of freed tensors; False where the C library is not glibc.

    By default every large tensor is a new mapping whose pages the kernel zeroes on first touch, again in
    every step; on a CPU that is a considerable part of a light network's training step. The price is that
    memory freed between two steps is not returned to the operating system.
    """
    if not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _KEEP_BYTES), (_M_TOP_PAD, _GROW_BYTES))
        return all([mallopt(name, value) == 1 for name, value in settings])
    return False


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error means that a smaller batch may fit into memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def no_room_for_one(device: torch.device) -> SkinLesionError:
    """The error of a device that has too little memory for a single image."""
    return SkinLesionError(
        f"{device} has too little memory for a single image of this size",
        "Use a smaller input (--set input_size_px=...) or another --device.",
    )


def peak_memory_bytes(device: torch.device) -> int | None:
    """Peak memory use so far: of the GPU, or of this process on a CPU; None where it is not available."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024
