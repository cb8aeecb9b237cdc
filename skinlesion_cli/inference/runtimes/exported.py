"""Which runtime runs which export."""

from __future__ import annotations

from skinlesion_cli.errors import UsageError
from skinlesion_cli.inference.runtimes.base import Runtime


def exported_runtime(model: bytes, kind: str) -> Runtime:
    """The runtime of an export of this kind; `model` is the content of its ONNX file.

    Raises
    ------
    UsageError : its package is not installed, or this processor cannot run it.
    """
    extra = "openvino" if kind.startswith("openvino") else "onnx"
    try:
        if extra == "openvino":
            from skinlesion_cli.inference.runtimes.openvino import OpenVinoRuntime

            return OpenVinoRuntime(model, kind)
        from skinlesion_cli.inference.runtimes.onnx import OnnxRuntime

        return OnnxRuntime(model, kind)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{error.name} is not installed", f"Run `pip install 'skinlesion[{extra}]'`."
        ) from None
