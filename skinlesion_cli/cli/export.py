"""`skinlesion export`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from skinlesion_cli.cli import choices, options
from skinlesion_cli.cli.choices import one_of
from skinlesion_cli.cli.root import StageCall, command

EXAMPLE = """
skinlesion export
skinlesion export --format openvino-bf16
skinlesion export --format onnx-int8 --max-bacc-drop 0.005
skinlesion export --model builtin
"""
FORMAT = (
    "onnx (same probabilities within 1e-5); within --max-bacc-drop onnx-int8 (8-bit) and openvino-bf16 (on "
    "processors with bfloat16: the fastest); through timmx: "
    "openvino, coreml, litert, executorch."
)


@command("export", example=EXAMPLE, section="Workspace")
def export(
    format: Annotated[str, one_of("--format", help=FORMAT, known="artifacts.exports.ALL_FORMATS")] = "onnx",
    members: Annotated[
        list[str] | None,
        typer.Option("--member", help="Only this network. Repeatable.", autocompletion=choices.networks),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Validation images to compare on, at most.")] = 512,
    max_bacc_drop: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Balanced accuracy that an export may cost.")
    ] = 0.01,
    model: options.ModelOption = None,
    *,
    workspace: Path,
) -> StageCall[Any]:
    """Export networks for fast prediction on CPUs, after comparing them with torch.

    Those of a model that is not the workspace's own go into the folder SKINLESION_CACHE, or else into the user's
    cache; predict finds them there.
    """
    from skinlesion_cli.stages import export as stage

    config = stage.ExportSettings(
        workspace=workspace,
        format=format,
        members=tuple(members or ()),
        images=images,
        max_bacc_drop=max_bacc_drop,
        model=model,
    )
    return StageCall(stage.run, config)
