"""The OpenVINO runtime: an exported network in bfloat16, on processors that compute in it."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from skinlesion_cli.artifacts.exports import DETAIL, FEATURES, INPUT, LOGITS, METADATA
from skinlesion_cli.errors import UsageError
from skinlesion_cli.inference.runtimes.base import Outputs, deviation, metadata_input, one_by_one
from skinlesion_cli.parallel import available_cores


def has_bfloat16() -> bool:
    """Whether this processor computes in bfloat16 (x86: AVX512-BF16 or AMX)."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class OpenVinoRuntime:
    """Runs an exported ONNX network: inputs `pixels` uint8 (n, s, s, 3) and, of a network with a branch for
    it, `metadata` float32 (n, n_columns); outputs `logits`, `features` and
    `detail` (which older exports lack).

    Convolutions keep 8 bits of each number, so probabilities are those of float32 to about two digits: what
    that costs is measured when the export is made. One core per image, as many images at once as there are
    threads that call; the result does not depend on their number.

    Raises
    ------
    UsageError : this processor has no bfloat16; OpenVINO would silently compute in float32.
    """

    def __init__(self, model: bytes, name: str = "openvino-bf16") -> None:
        import openvino

        if not has_bfloat16():
            raise UsageError(
                "this processor has no bfloat16 arithmetic, which makes --runtime openvino-bf16 fast",
                "Use --runtime onnx.",
            )
        self.name = name
        core = openvino.Core()
        network = core.read_model(model, b"")
        shape = network.input(INPUT).get_partial_shape()
        shape[0] = 1
        metadata = [given for given in network.inputs if METADATA in given.names]
        self._n_metadata: int = metadata[0].get_partial_shape()[1].get_length() if metadata else 0
        fixed = {METADATA: [1, self._n_metadata]} if metadata else {}
        network.reshape({INPUT: shape, **fixed})
        self._has_detail = any(DETAIL in output.names for output in network.outputs)
        with kept_signal_stack():
            self._compiled: Any = core.compile_model(
                network,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": "bf16",
                    "PERFORMANCE_HINT": "THROUGHPUT",
                    # A stream has one thread, so that images are predicted side by side.
                    "INFERENCE_NUM_THREADS": available_cores(),
                    "NUM_STREAMS": available_cores(),
                },
            )
        # A request belongs to the thread that made it.
        self._local = threading.local()
        # The first inference initialises the Python binding, and two threads that do so at once can deadlock:
        # it is made here, before there are several threads.
        self.logits_and_features(np.zeros([1, *network.input(INPUT).shape[1:]], dtype=np.uint8))

    def logits(self, images: np.ndarray, metadata: np.ndarray | None = None) -> np.ndarray:
        """Logits, float32 (n, n_classes), of pixels uint8 (n, s, s, 3)."""
        return self._run((LOGITS,), images, metadata)[0]

    def logits_and_features(
        self, images: np.ndarray, metadata: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logits (n, n_classes) and the last feature map (n, n_features, h, w), float32, of one forward
        pass.
        """
        logits, features = self._run((LOGITS, FEATURES), images, metadata)
        return logits, features

    def outputs(self, images: np.ndarray, metadata: np.ndarray | None = None) -> Outputs:
        """All outputs of one forward pass; an export without `detail` has that of the last features."""
        if not self._has_detail:
            logits, features = self.logits_and_features(images, metadata)
            return Outputs(logits, features, deviation(features))
        return Outputs(*self._run((LOGITS, FEATURES, DETAIL), images, metadata))

    def _run(
        self, outputs: tuple[str, ...], images: np.ndarray, metadata: np.ndarray | None
    ) -> tuple[np.ndarray, ...]:
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()

        def forward(image: np.ndarray, row: np.ndarray | None) -> tuple[np.ndarray, ...]:
            request.get_tensor(INPUT).data[:] = image
            if row is not None:
                request.get_tensor(METADATA).data[:] = row
            request.infer()
            return tuple(np.array(request.get_tensor(name).data, dtype=np.float32) for name in outputs)

        return one_by_one(forward, images, metadata_input(metadata, len(images), self._n_metadata, self.name))


class SignalStack(ctypes.Structure):
    """`stack_t` of the C library on Linux: where a thread runs its signal handlers."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size_bytes", ctypes.c_size_t))

    @classmethod
    def current(cls) -> SignalStack | None:
        """That of this thread; None where it cannot be asked for (other systems than Linux)."""
        stack = cls()
        ask = getattr(ctypes.CDLL(None), "sigaltstack", None) if sys.platform == "linux" else None
        return stack if ask is not None and ask(None, ctypes.byref(stack)) == 0 else None


@contextlib.contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Give this thread back the signal stack that it had.

    Compiling a network leaves the thread with a stack that OpenVINO frees together with the network. The next
    signal, Ctrl-C for example, would then end the process with a segmentation fault.
    """
    before = SignalStack.current()
    try:
        yield
    finally:
        if before is not None:
            ctypes.CDLL(None).sigaltstack(ctypes.byref(before), None)
