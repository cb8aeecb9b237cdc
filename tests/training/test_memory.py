"""Freed memory is reused, and not asked of the system again."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from skinlesion_cli.models.training.memory import is_out_of_memory
from tests.support.limits import HANG_S

SCRIPT = """
import ctypes, resource, sys
from skinlesion_cli.models.training.memory import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]


def faults_of_ten_tensors():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        place = libc.malloc(64 << 20)
        libc.memset(place, 1, 64 << 20)
        libc.free(place)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


plain = faults_of_ten_tensors()
assert keep_freed_memory()
faults_of_ten_tensors()
print(plain, faults_of_ten_tensors())
"""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 18.09 GB)"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
    ],
)
def test_what_a_smaller_batch_may_mend(error, expected):
    assert is_out_of_memory(error) is expected


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_large_blocks_cost_their_pages_once():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stderr
    plain, kept = map(int, done.stdout.split())
    # 64 MiB are 16,384 pages of 4 KiB, ten times over: without the setting they are faulted in each time.
    assert plain > 10 * 16_384 * 0.9
    assert kept < 1_000
