"""Every runtime by name. To add one: a class in `inference/runtimes/`, and a line in `RUNTIMES`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from skinlesion_cli.artifacts import exports
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.errors import ArtifactError, SkinLesionError
from skinlesion_cli.inference.engine import EngineMember
from skinlesion_cli.inference.runtimes.base import Runtime

# The runtime, and the weight of the network's last layer, float32 (n_classes, n_features).
Loaded = tuple[Runtime, np.ndarray]


@dataclass(frozen=True)
class RuntimeSpec:
    """How a trained network is made to run.

    `load` gets the checkpoint and the value of --device. `package` has to be installed; `install` says how.
    `cpu_only`: any other device is refused.
    """

    load: Callable[[Checkpoint, str], Loaded]
    package: str = "torch"
    install: str = "pip install torch"
    cpu_only: bool = False

    @property
    def is_installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None

    def member(self, checkpoint: Checkpoint, weight: float, device: str) -> EngineMember:
        """The network as a member of an ensemble."""
        runtime, classifier = self.load(checkpoint, device)
        return EngineMember(
            checkpoint.name,
            weight,
            checkpoint.preprocessing,
            runtime,
            classifier,
            checkpoint.recipe.metadata_fields,
        )


_EXPORT_AGAIN = "Run `skinlesion export --format {}` again, with the same --model or --workspace."


def _torch(checkpoint: Checkpoint, device: str) -> Loaded:
    from skinlesion_cli.inference.runtimes.torch import TorchRuntime
    from skinlesion_cli.models.devices import resolve_device
    from skinlesion_cli.models.network import restore_network

    network = restore_network(checkpoint)
    where = resolve_device(device)
    runtime = TorchRuntime(network, str(where), singly=where.type == "cpu")
    return runtime, network.classifier.weight.detach().cpu().numpy()


def _run_export(checkpoint: Checkpoint, _device: str, kind: str) -> Loaded:
    from skinlesion_cli.inference.runtimes.exported import exported_runtime

    export = exports.Export.load_for(checkpoint, kind)
    size_px = checkpoint.preprocessing.input_size_px
    n_classes, n_features = export.classifier.shape
    try:
        runtime = exported_runtime(export.model, kind, export.weights)
        logits, features, _ = runtime.outputs(np.zeros((1, size_px, size_px, 3), dtype=np.uint8))
    except SkinLesionError:
        raise
    except Exception as error:  # every library has exceptions of its own
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise ArtifactError(
            f"the {kind} export of {checkpoint.name} cannot be run: {reason[0]}", _EXPORT_AGAIN.format(kind)
        ) from error
    shapes = logits.shape, features.shape[:2], features.ndim
    if shapes != ((1, n_classes), (1, n_features), 4):
        raise ArtifactError(
            f"the {kind} export of {checkpoint.name} has outputs of shapes {logits.shape} and "
            f"{features.shape}, expected (1, {n_classes}) and (1, {n_features}, h, w)",
            _EXPORT_AGAIN.format(kind),
        )
    return runtime, export.classifier


def _exported(kind: str, package: str, install: str) -> RuntimeSpec:
    return RuntimeSpec(partial(_run_export, kind=kind), package, f"pip install {install}", cpu_only=True)


RUNTIMES: dict[str, RuntimeSpec] = {
    "torch": RuntimeSpec(_torch),
    "onnx": _exported("onnx", "onnxruntime", "onnxruntime"),
    "onnx-int8": _exported("onnx-int8", "onnxruntime", "onnxruntime"),
    "openvino-bf16": _exported("openvino-bf16", "openvino", "'skinlesion[openvino]'"),
}
