"""Export to formats for phones and other small devices, through timmx (`pip install 'skinlesion[edge]'`)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from skinlesion_cli.errors import SkinLesionError, UsageError
from skinlesion_cli.models.network import LesionNet


def export_edge(network: LesionNet, kind: str, size_px: int, target: Path) -> None:
    """Write the network in an edge format; where timmx can run it, it compares the output with torch's.

    The exported network takes float (1, 3, size_px, size_px) in [0, 1] and returns logits (1, 7).

    Raises
    ------
    UsageError : timmx, or a package that it needs for the format, is not installed.
    SkinLesionError : the export failed, or its output differs from torch's.
    """
    besides = "a branch for patient metadata" if network.n_metadata else ""
    besides = besides or ("arguments of its own" if network.spec.options else "")
    if besides:
        raise UsageError(
            f"{network.spec.name} has {besides}, which edge formats do not carry", "Use --format onnx."
        )
    try:
        from timmx.api import export_model
        from timmx.errors import TimmxError
    except ImportError:
        raise UsageError("timmx is not installed", "Run `pip install 'skinlesion[edge]'`.") from None
    sizes: Any = (network.mean, network.std)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        # timmx reads this file within this call; no file from outside is ever unpickled.
        checkpoint = Path(folder) / "weights.pth"
        torch.save(network.backbone.state_dict(), checkpoint)
        mean, std = ((values.flatten() / 255).tolist() for values in sizes)
        options: dict[str, Any] = {"fp16": False} if kind == "openvino" else {}
        try:
            export_model(
                kind,
                network.spec.timm_name,
                checkpoint=str(checkpoint),
                num_classes=7,
                input_size=(3, size_px, size_px),
                normalize=True,
                mean=tuple(mean),
                std=tuple(std),
                output=str(target),
                **options,
            )
        except TimmxError as error:
            missing = "install" in str(error).lower()
            hint = f"Run `pip install 'timmx[{kind}]'`." if missing else "Use --format onnx."
            raise (UsageError if missing else SkinLesionError)(f"{kind}: {error}", hint) from None
