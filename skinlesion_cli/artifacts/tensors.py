"""Safetensors files from elsewhere: the header is bounded and checked before any tensor is made."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from skinlesion_cli.errors import ArtifactError, name_items

_MOST_HEADER_BYTES = 16 << 20
_MOST_TENSORS = 100_000
_ITEM_BYTES = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8, "I32": 4, "I64": 8, "U8": 1, "I8": 1, "BOOL": 1}

# Types that a graph can take, and the bits of their exponents.
_FLOATS: dict[str, tuple[str, str, int]] = {
    "F16": ("<f2", "<u2", 0x7C00),
    "F32": ("<f4", "<u4", 0x7F800000),
}


@dataclass(frozen=True)
class TensorInfo:
    """What a header states of one tensor. `offset_bytes` counts from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    offset_bytes: int
    n_bytes: int


def read_header(content: bytes, name: str) -> dict[str, TensorInfo]:
    """Names, types and shapes of the tensors in a safetensors file.

    Raises
    ------
    ArtifactError : the header is damaged or too large, or states other sizes than the file has.
    """
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or not 2 <= length <= min(_MOST_HEADER_BYTES, len(content) - 8):
        raise ArtifactError(f"{name} is not a safetensors file: its header is damaged or too large")
    try:
        stated = json.loads(content[8 : 8 + length])
        stated.pop("__metadata__", None)
        if len(stated) > _MOST_TENSORS:
            raise ValueError(f"{len(stated)} tensors")
        return {str(key): _info(key, entry, 8 + length) for key, entry in stated.items()}
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{name} is not a safetensors file: {error}") from None


def _info(key: str, entry: Mapping[str, object], data_start: int) -> TensorInfo:
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise ValueError(f"{key} has the type {dtype!r}")
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError(f"{key} has the shape {shape!r} at {offsets!r}")
    assert isinstance(shape, list)
    assert isinstance(offsets, list)
    if (
        len(shape) > 8
        or len(offsets) != 2
        or math.prod(shape) * _ITEM_BYTES[dtype] != offsets[1] - offsets[0]
    ):
        raise ValueError(f"{key} of shape {shape} does not fit its {offsets} bytes")
    return TensorInfo(dtype, tuple(shape), data_start + offsets[0], offsets[1] - offsets[0])


def load_float32(content: bytes, shapes: Mapping[str, tuple[int, ...]], name: str) -> dict[str, np.ndarray]:
    """The float32 tensors of a file; those that it has must have these shapes.

    Raises
    ------
    ArtifactError : the file is damaged, or a tensor has another name, type or shape.
    """
    return load_tensors(content, {key: ("F32", shape) for key, shape in shapes.items()}, name)


def load_tensors(
    content: bytes, expected: Mapping[str, tuple[str, tuple[int, ...]]], name: str
) -> dict[str, np.ndarray]:
    """The tensors of a file; those that it has must have these types (as in the header) and shapes.

    Raises
    ------
    ArtifactError : the file is damaged, or a tensor has another name, type or shape.
    """
    for key, info in read_header(content, name).items():
        if key not in expected:
            raise ArtifactError(f"{name} holds an unknown tensor {key!r}")
        dtype, shape = expected[key]
        if (info.dtype, info.shape) != (dtype, shape):
            raise ArtifactError(
                f"{name}: {key} has type {info.dtype} and shape {info.shape}, expected {dtype} and {shape}"
            )
    try:
        return load(content)
    except SafetensorError as error:
        raise ArtifactError(f"{name} cannot be read: {error}") from None


def stored_tensors(content: bytes, names: Iterable[str], name: str) -> dict[str, np.ndarray]:
    """Some tensors of a file, float32 or float16 as they are stored; arrays that share its memory.

    Raises
    ------
    ArtifactError : the file is damaged, or a tensor is missing, of another type, or not finite.
    """
    header, tensors, broken = read_header(content, name), {}, []
    for key in names:
        info = header.get(key)
        if info is None or info.dtype not in _FLOATS:
            raise ArtifactError(f"{name} have no tensor {key!r} of float32 or float16")
        if info.offset_bytes + info.n_bytes > len(content):
            raise ArtifactError(f"{name} end before the tensor {key!r}")
        dtype, unsigned, exponent = _FLOATS[info.dtype]
        flat = np.frombuffer(content, np.dtype(dtype), math.prod(info.shape), info.offset_bytes)
        # NaN and infinity have all bits of the exponent set; numpy tests float16 itself slowly.
        if ((flat.view(unsigned) & exponent) == exponent).any():
            broken.append(key)
        tensors[key] = flat.reshape(info.shape)
    if broken:
        raise ArtifactError(f"{name} hold NaN or infinity: {name_items(broken)}", "Train the network again.")
    return tensors
