"""Initial weights from a file, of this network or of another task: what fits by name and shape is loaded."""

from __future__ import annotations

import io
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinlesion_cli.errors import ArtifactError, WeightsError, name_items

if TYPE_CHECKING:
    import torch

    from skinlesion_cli.models.network import LesionNet

SAFETENSORS = ".safetensors"
# Read by `torch.load(weights_only=True)`, which builds tensors and containers and runs no code.
TORCH = (".pth", ".pt")
# Under which training programs store the weights, beside optimisers and counters. Self-distillation has a
# student and a teacher; the teacher is the network that is published.
STATE_KEYS = ("state_dict", "model", "teacher")
# Batch norm's count of batches: some files omit it, and prediction does not use it.
_COUNTER = "num_batches_tracked"


def load_fitting(network: LesionNet, path: Path) -> str:
    """Load the tensors of a file that fit the backbone, and describe the file, what fitted, and what did not.

    The classifier keeps its initial values, and so does every tensor that the file lacks or has in another
    shape. A prefix that the names share in the file (`module.`, `backbone.`) is disregarded.

    Raises
    ------
    WeightsError : there is no such file, or it is neither safetensors nor readable without running code.
    ArtifactError : the file cannot be read or holds NaN or infinity, or less than half of the backbone's
        tensors fit.
    """
    from skinlesion_cli.artifacts.files import sha256_bytes

    if path.suffix not in (SAFETENSORS, *TORCH):
        raise WeightsError(
            f"{path.name} is refused: weights files end in {SAFETENSORS}, {' or '.join(TORCH)}",
            "Give such a file, auto, or none.",
        )
    try:
        if not path.is_file():
            raise WeightsError(f"there is no weights file at {path}", "Give a weights file, auto, or none.")
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"the weights file {path} cannot be read: {error.strerror or error}",
            "Check its permissions, or give another file, auto, or none.",
        ) from None
    state = _safetensors(path, content) if path.suffix == SAFETENSORS else _torch(path, content)
    not_finite = [k for k, tensor in state.items() if tensor.is_floating_point() and _has_nan(tensor)]
    if not_finite:
        raise ArtifactError(
            f"{path.name} holds NaN or infinity: {name_items(not_finite)}",
            "Give another file, auto, or none.",
        )
    return f"file {path.name} sha256 {sha256_bytes(content)[:12]}: {_fill(network, state, path.name)}"


def _safetensors(path: Path, content: bytes) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(content)
    except SafetensorError as error:
        raise WeightsError(f"{path.name} cannot be read as safetensors: {error}") from None


def _torch(path: Path, content: bytes) -> dict[str, torch.Tensor]:
    import torch

    try:
        stored: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        # Damaged files raise many kinds of error, and one that needs to run code an UnpicklingError.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"{path.name} is refused: it is damaged, or holds more than tensors and would run code: {reason}",
            "If you trust the file, load it where it was made and store only the tensors: "
            "safetensors.torch.save_file(network.state_dict(), 'weights.safetensors').",
        ) from None
    while isinstance(stored, Mapping) and (key := next((k for k in STATE_KEYS if _nested(stored, k)), None)):
        stored = stored[key]
    tensors = (
        {str(key): value for key, value in stored.items() if isinstance(value, torch.Tensor)}
        if isinstance(stored, Mapping)
        else {}
    )
    if not tensors:
        raise WeightsError(
            f"{path.name} holds no named tensors",
            f"They are expected at the top, or under one of {', '.join(STATE_KEYS)}.",
        )
    return tensors


def _nested(stored: Mapping[Any, Any], key: str) -> bool:
    return isinstance(stored.get(key), Mapping)


def _has_nan(tensor: torch.Tensor) -> bool:
    return not bool(tensor.float().isfinite().all())


def _fill(network: LesionNet, state: dict[str, torch.Tensor], name: str) -> str:
    own = network.backbone.state_dict()
    head = classifier_keys(network)
    state = translated(network, _without_prefix(state, own))
    expected = [key for key in own if key not in head and not key.endswith(_COUNTER)]
    offered = [key for key in sorted(state) if key not in head and not key.endswith(_COUNTER)]
    fitting = {
        key: tensor
        for key, tensor in state.items()
        if key in own and key not in head and tensor.shape == own[key].shape
    }
    initial = [key for key in expected if key not in fitting]
    unused = [key for key in offered if key not in fitting]
    n_fitting = len(expected) - len(initial)
    counts = f"{n_fitting} of {len(expected)} tensors of {network.spec.name}"
    if 2 * n_fitting < len(expected):
        raise ArtifactError(
            f"{name} does not fit: only {counts} are in it with the same name and shape\n"
            f"missing or of another shape: {name_items(initial)}\n"
            f"in the file and not used: {name_items(unused) or 'none'}",
            f"Give weights of timm's {network.spec.timm_name}, another --arch, or --weights none.",
        )
    network.backbone.load_state_dict(fitting, strict=False)
    parts = [counts]
    if initial:
        parts.append(f"{len(initial)} keep their initial values: {name_items(initial)}")
    if unused:
        parts.append(f"{len(unused)} of the file not used: {name_items(unused)}")
    return "; ".join(parts)


def _without_prefix(
    state: dict[str, torch.Tensor], own: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The tensors without the prefix under which most of those that could be the network's own are stored.

    The names of all others, such as those of a second head, stay as they are; so do all names where no prefix
    has most of them, as in the weights of another network whose blocks happen to end in the same names.
    """
    prefixes: Counter[str] = Counter()
    for key, tensor in state.items():
        parts = key.split(".")
        for start in range(len(parts)):
            suffix = ".".join(parts[start:])
            if suffix in own and own[suffix].shape == tensor.shape:
                prefixes[key.removesuffix(suffix)] += 1
                break
    prefix, count = prefixes.most_common(1)[0] if prefixes else ("", 0)
    if not prefix or 2 * count <= prefixes.total():
        return state
    return {key.removeprefix(prefix): tensor for key, tensor in state.items()}


def translated(network: LesionNet, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """timm's own translation, of networks that it names: position embeddings of another size are resampled.

    Raises
    ------
    WeightsError : the tensors are not what this translation is made for.
    """
    if network.spec.cam_layer:
        return state
    translate = getattr(sys.modules[type(network.backbone).__module__], "checkpoint_filter_fn", None)
    if translate is None:
        return state
    try:
        return dict(translate(dict(state), network.backbone))
    except Exception as error:
        # Written for weights of the same family; others raise whatever they come to first.
        raise WeightsError(
            f"the weights cannot be translated for {network.spec.name}: {type(error).__name__}: {error}",
            f"Give weights of timm's {network.spec.timm_name}, or --weights none.",
        ) from None


def classifier_keys(network: LesionNet) -> set[str]:
    """Names of the classifier's tensors, whose shapes depend on the classes of the task."""
    prefix = network.backbone.default_cfg["classifier"]
    return {f"{prefix}.weight", f"{prefix}.bias"}
