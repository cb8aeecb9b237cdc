"""The interpreters of edge formats, to compare them with torch; skinlesion does not predict with them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from skinlesion_cli.artifacts.edge_exports import install_hint
from skinlesion_cli.errors import UsageError
from skinlesion_cli.inference.runtimes.base import one_by_one

# From pixels, float32 (1, 3, s, s) in [0, 1], to logits (1, 7).
Run = Callable[[np.ndarray], np.ndarray]


class EdgeRuntime:
    """A network in an edge format, in its own interpreter, with one thread; one image at a time.

    Raises
    ------
    UsageError : the interpreter is not installed, or the format does not run on this system.
    """

    def __init__(self, path: Path, kind: str) -> None:
        if not runs_here(kind):
            raise UsageError(f"{kind} does not run on {sys.platform}", "Run it on a device of its kind.")
        try:
            self._run = _INTERPRETERS[kind](path)
        except ModuleNotFoundError as error:
            raise UsageError(f"{error.name} is not installed", install_hint(kind)) from None
        self.name = kind
        self._lock = threading.Lock()  # an interpreter has one input and one output

    def logits(self, images: np.ndarray, metadata: np.ndarray | None = None) -> np.ndarray:
        """Logits, float32 (n, 7), of pixels uint8 (n, s, s, 3); these formats take no metadata."""

        def forward(image: np.ndarray, _metadata: np.ndarray | None) -> tuple[np.ndarray, ...]:
            pixels = np.ascontiguousarray(image.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)
            with self._lock:
                return (np.array(self._run(pixels), dtype=np.float32),)

        return one_by_one(forward, images)[0]


def runs_here(kind: str) -> bool:
    """Whether the format has an interpreter for this system: that of Core ML is part of macOS."""
    return kind != "coreml" or sys.platform == "darwin"


def _litert(path: Path) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(pixels: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(taken["index"], pixels)
        interpreter.invoke()
        logits: np.ndarray = interpreter.get_tensor(given["index"])
        return logits

    return run


def _openvino(path: Path) -> Run:
    import openvino

    from skinlesion_cli.inference.runtimes.openvino import kept_signal_stack

    # On processors that have bfloat16 OpenVINO would compute in it unless told otherwise.
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    with kept_signal_stack():
        compiled = openvino.Core().compile_model(str(path), "CPU", options)
    return lambda pixels: compiled(pixels)[0]


def _executorch(path: Path) -> Run:
    import torch
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(path)
    method: Any = program.load_method("forward")
    # The network lives as long as the program that it was loaded from.
    return lambda pixels, _program=program: method.execute([torch.from_numpy(pixels)])[0].numpy()  # type: ignore[misc]


def _coreml(path: Path) -> Run:
    import coremltools

    network = coremltools.models.MLModel(str(path), compute_units=coremltools.ComputeUnit.CPU_ONLY)
    (taken,) = (value.name for value in network.get_spec().description.input)
    return lambda pixels: next(iter(network.predict({taken: pixels}).values()))


_INTERPRETERS: dict[str, Callable[[Path], Run]] = {
    "litert": _litert,
    "openvino": _openvino,
    "executorch": _executorch,
    "coreml": _coreml,
}
