"""Conversion to formats for phones and other small devices, through timmx.

Each format has an extra of its own (`pip install 'skinlesion[edge-litert]'`), for its packages may not fit
those of others.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from skinlesion_cli.artifacts.edge_exports import install_hint
from skinlesion_cli.errors import SkinLesionError, UsageError
from skinlesion_cli.models.network import LesionNet
from skinlesion_cli.models.onnx_export import quiet

# In half precision it would be another network than the one that was evaluated.
_FLOAT32: dict[str, dict[str, Any]] = {
    "openvino": {"fp16": False},
    "coreml": {"compute_precision": "float32"},
}


def export_edge(network: LesionNet, kind: str, size_px: int, target: Path) -> None:
    """Write the network in an edge format, in float32, without metadata.

    The exported network takes float (1, 3, size_px, size_px) in [0, 1] and returns logits (1, n_classes).

    Raises
    ------
    UsageError : timmx, or a package that it needs for the format, is not installed.
    SkinLesionError : the conversion failed.
    """
    if network.spec.options:
        raise UsageError(
            f"{network.spec.name} has arguments of its own, which edge formats do not carry",
            "Use --format onnx.",
        )
    # Read by C++ libraries when they are loaded: reports of theirs are no part of a command's output.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        from timmx.api import export_model
        from timmx.errors import TimmxError
    except ImportError:
        raise UsageError("timmx is not installed", install_hint(kind)) from None
    sizes: Any = (network.mean, network.std)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        # timmx reads this file within this call; no file from outside is ever unpickled.
        checkpoint = Path(folder) / "weights.pth"
        torch.save(_image_branch(network), checkpoint)
        mean, std = ((values.flatten() / 255).tolist() for values in sizes)
        try:
            with quiet():
                export_model(
                    kind,
                    network.spec.timm_name,
                    checkpoint=str(checkpoint),
                    num_classes=network.classifier.out_features,
                    input_size=(3, size_px, size_px),
                    normalize=True,
                    mean=tuple(mean),
                    std=tuple(std),
                    output=str(target),
                    **_FLOAT32.get(kind, {}),
                )
        except TimmxError as error:
            missing = "install" in str(error).lower()
            hint = install_hint(kind) if missing else "Use --format onnx."
            raise (UsageError if missing else SkinLesionError)(f"{kind}: {error}", hint) from None


def _image_branch(network: LesionNet) -> dict[str, torch.Tensor]:
    """The state of the backbone; its last bias includes what unknown metadata adds to the logits."""
    state: dict[str, torch.Tensor] = network.backbone.state_dict()
    if network.metadata is not None:
        bias = network.classifier_name.removeprefix("backbone.").removesuffix("weight") + "bias"
        with torch.no_grad():
            unknown = network.metadata(state[bias].new_zeros((1, network.n_metadata)))[0]
        state = {**state, bias: state[bias] + unknown}
    return state
