"""Export to ONNX: a graph that takes its weights from the checkpoint's file, or a file with all inside."""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from skinlesion_cli.artifacts.exports import INPUT, LOGITS, METADATA
from skinlesion_cli.artifacts.tensors import TensorInfo, read_header
from skinlesion_cli.errors import UsageError
from skinlesion_cli.models.network import LesionNet

INSTALL_HINT = "Run `pip install onnx onnxscript onnxruntime`."
_PREFIX = "network."
# Types of tensors in a safetensors file that a graph can read in place (numbers of onnx.TensorProto).
_FLOAT32, _FLOAT16 = 1, 10
_TYPES = {"F32": _FLOAT32, "F16": _FLOAT16}


class _Outputs(nn.Module):  # type: ignore[misc]
    def __init__(self, network: LesionNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.network.outputs(pixels).values())


class _OutputsWithMetadata(nn.Module):  # type: ignore[misc]
    def __init__(self, network: LesionNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor, metadata: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.network.outputs(pixels, metadata).values())


def to_onnx(network: LesionNet, size_px: int) -> bytes:
    """An ONNX file with the weights inside, from `pixels`, uint8 (n, size_px, size_px, 3), and of a network
    with a branch for it `metadata`, float32 (n, n_metadata), to the outputs of `LesionNet.outputs`; batch
    norm is merged into the convolutions.

    Raises
    ------
    UsageError : onnx or onnxscript is not installed.
    """
    with quiet():
        program = _exported(network, size_px)
        program.optimize()
        content: bytes = program.model_proto.SerializeToString()
        return content


def to_graph(network: LesionNet, size_px: int, weights: bytes, file: str) -> tuple[bytes, tuple[str, ...]]:
    """The same network as an ONNX graph without weights, and the names of the tensors that it takes.

    The graph refers to each tensor where it lies in the safetensors file `file`, whose content is `weights`:
    as external data in the sense of ONNX, so that any ONNX runtime reads the graph beside that file. Half
    precision is cast to float32 by the graph; onnxruntime does that once, when it loads the graph.

    Raises
    ------
    UsageError : onnx or onnxscript is not installed.
    """
    with quiet():
        program = _exported(network, size_px)
        from onnxscript import optimizer

        # Only what weights have no part in is computed beforehand.
        optimizer.fold_constants(program.model, input_size_limit=0)
        optimizer.remove_unused_nodes(program.model)
        model = program.model_proto
    return _linked(model, read_header(weights, file), file)


def _exported(network: LesionNet, size_px: int) -> Any:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed", INSTALL_HINT) from None
    takes_metadata = network.n_metadata > 0
    model = (_OutputsWithMetadata if takes_metadata else _Outputs)(network.eval()).eval()
    # An example batch of one image would fix the batch size at 1.
    example: tuple[torch.Tensor, ...] = (torch.zeros((2, size_px, size_px, 3), dtype=torch.uint8),)
    if takes_metadata:
        example += (torch.zeros((2, network.n_metadata)),)
    with torch.no_grad():
        names = list(network.outputs(*example))
    return torch.onnx.export(
        model,
        example,
        dynamo=True,
        optimize=False,
        input_names=[INPUT, METADATA][: len(example)],
        output_names=names,
        dynamic_shapes=({0: "batch"},) * len(example),
        verbose=False,
    )


def _linked(model: Any, header: dict[str, TensorInfo], file: str) -> tuple[bytes, tuple[str, ...]]:
    from onnx import helper

    graph, casts, taken = model.graph, [], []
    for tensor in graph.initializer:
        key = tensor.name.removeprefix(_PREFIX)
        info = header.get(key)
        if info is None or info.dtype not in _TYPES or tensor.data_type != _FLOAT32:
            continue
        casts.append(helper.make_node("Cast", [key], [tensor.name], to=_FLOAT32))
        tensor.Clear()
        tensor.name, tensor.data_type = key, _TYPES[info.dtype]
        tensor.dims.extend(info.shape)
        tensor.data_location = tensor.EXTERNAL
        for name, value in (("location", file), ("offset", info.offset_bytes), ("length", info.n_bytes)):
            entry = tensor.external_data.add()
            entry.key, entry.value = name, str(value)
        taken.append(key)
    for node in graph.node:
        # Where in which file of torch and timm the node was made.
        node.doc_string = ""
        del node.metadata_props[:]
    nodes = [*casts, *graph.node]
    del graph.node[:], graph.value_info[:], graph.metadata_props[:], model.metadata_props[:]
    graph.node.extend(nodes)
    for value in (*graph.input, *graph.output):
        del value.metadata_props[:]
    return model.SerializeToString(deterministic=True), tuple(taken)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the reports of an exporter, which say nothing to a user of the command."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def _n_metadata(model: bytes) -> int:
    import onnx

    inputs = onnx.load_from_string(model).graph.input
    widths = [given.type.tensor_type.shape.dim[1].dim_value for given in inputs if given.name == METADATA]
    return int(widths[0]) if widths else 0


def _sum_of_branches(model: bytes) -> list[str]:
    """The node that adds the logits of metadata to those of the image; none without a branch for metadata."""
    import onnx

    graph = onnx.load_from_string(model).graph
    if METADATA not in [given.name for given in graph.input]:
        return []
    return [node.name for node in graph.node if LOGITS in node.output]


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

    n_metadata = _n_metadata(model)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(calibration_images)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            if batch is None:
                return None
            # What metadata adds is not quantised, so its ranges need not be measured.
            nothing_known = {METADATA: np.zeros((len(batch), n_metadata), np.float32)} if n_metadata else {}
            return {INPUT: batch, **nothing_known}

    with quiet(), tempfile.TemporaryDirectory() as folder:
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
            nodes_to_exclude=_sum_of_branches(model),
            op_types_to_quantize=["Conv", "Add", "GlobalAveragePool", "MaxPool", "Concat"],
        )
        return target.read_bytes()
