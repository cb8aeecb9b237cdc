"""Which runtime runs which export."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from skinlesion_cli.errors import UsageError
from skinlesion_cli.inference.runtimes.base import Runtime


def exported_runtime(model: bytes, kind: str, weights: Mapping[str, np.ndarray] | None = None) -> Runtime:
    """The runtime of an export of this kind; `model` is the content of its ONNX file, `weights` the tensors,
    float32 or float16, that are not in it.

    Raises
    ------
    UsageError : its package is not installed, or this processor cannot run it.
    """
    try:
        if kind.startswith("openvino"):
            from skinlesion_cli.inference.runtimes.openvino import OpenVinoRuntime

            return OpenVinoRuntime(model, kind)
        from skinlesion_cli.inference.runtimes.onnx import OnnxRuntime

        return OnnxRuntime(model, kind, weights)
    except ModuleNotFoundError as error:
        install = "'skinlesion[openvino]'" if error.name == "openvino" else error.name
        raise UsageError(f"{error.name} is not installed", f"Run `pip install {install}`.") from None
