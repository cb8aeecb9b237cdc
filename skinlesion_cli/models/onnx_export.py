"""Export to ONNX, and 8-bit quantisation (`pip install 'skinlesion[onnx]'`)."""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from skinlesion_cli.errors import UsageError
from skinlesion_cli.models.network import LesionNet

# Names of the graph's input and outputs; `inference.runtimes.base` uses the same ones.
INPUT, LOGITS, FEATURES = "pixels", "logits", "features"
INSTALL_HINT = "Run `pip install 'skinlesion[onnx]'`."


class _WithFeatures(nn.Module):  # type: ignore[misc]
    def __init__(self, network: LesionNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.network.features(pixels)
        return self.network.logits(features), features


def to_onnx(network: LesionNet, size_px: int) -> bytes:
    """An ONNX model from `pixels`, uint8 (n, size_px, size_px, 3), to `logits` (n, 7)
    and `features` (n, c, h, w).

    Raises
    ------
    UsageError : onnx or onnxscript is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed", INSTALL_HINT) from None
    model = _WithFeatures(network.eval()).eval()
    # An example batch of one image would fix the batch size at 1.
    example = torch.zeros((2, size_px, size_px, 3), dtype=torch.uint8)
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = Path(folder) / "model.onnx"
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                torch.onnx.export(
                    model,
                    (example,),
                    str(path),
                    dynamo=True,
                    external_data=False,
                    input_names=[INPUT],
                    output_names=[LOGITS, FEATURES],
                    dynamic_shapes=({0: "batch"},),
                    verbose=False,
                )
            return path.read_bytes()
    finally:
        logging.disable(previous)


def to_int8(model: bytes, calibration_images: Iterable[np.ndarray]) -> bytes:
    """The model with 8-bit weights and activations; activation ranges are measured on `calibration_images`.

    Parameters
    ----------
    calibration_images : batches of pixels, uint8 (n, size_px, size_px, 3);
        not the images that evaluate the result.
    """
    try:
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.calibrate import CalibrationDataReader
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed", INSTALL_HINT) from None

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(calibration_images)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch}

    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
            source, prepared, target = (Path(folder) / name for name in ("a.onnx", "b.onnx", "c.onnx"))
            source.write_bytes(model)
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(target),
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                # The last linear layer stays in float32: it costs next to nothing.
                op_types_to_quantize=["Conv", "Add", "GlobalAveragePool", "MaxPool", "Concat"],
            )
            return target.read_bytes()
    finally:
        logging.disable(previous)
