"""Which runtime runs which export."""

from __future__ import annotations

from skinlesion_cli.inference.runtimes.base import Runtime


def exported_runtime(model: bytes, kind: str) -> Runtime:
    """The runtime of an export of this kind; `model` is the content of its ONNX file."""
    if kind.startswith("openvino"):
        from skinlesion_cli.inference.runtimes.openvino_runtime import OpenVinoRuntime

        return OpenVinoRuntime(model, kind)
    from skinlesion_cli.inference.runtimes.onnx_runtime import OnnxRuntime

    return OnnxRuntime(model, kind)
