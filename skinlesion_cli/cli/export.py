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
    "Format to write: {names}. onnx gives the same probabilities within 1e-5; onnx-int8 (8-bit) and "
    "openvino-bf16 (fastest on processors with bfloat16) must stay within --max-bacc-drop; the "
    "others are for phones and other small devices."
)


@command("export", example=EXAMPLE, section="Workspace")
def export(
    format: Annotated[str, one_of("--format", help=FORMAT, known="artifacts.exports.ALL_FORMATS")] = "onnx",
    members: Annotated[
        list[str] | None,
        typer.Option(
            "--member", help="Export only this network. Repeatable.", autocompletion=choices.networks
        ),
    ] = None,
    images: Annotated[
        int, typer.Option(min=1, help="Maximum number of validation images to compare on.")
    ] = 512,
    max_bacc_drop: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Largest loss of balanced accuracy that an export may cause."),
    ] = 0.01,
    model: options.ModelOption = None,
    *,
    workspace: Path,
) -> StageCall[Any]:
    """Export networks for fast prediction on CPUs, after comparing them with torch.

    Exports of a model that is not the workspace's own go to the folder SKINLESION_CACHE, or else to the
    user's cache, where predict finds them.
    """
    from skinlesion_cli.stages import export as stage

    settings = stage.ExportSettings(
        workspace=workspace,
        format=format,
        members=tuple(members or ()),
        images=images,
        max_bacc_drop=max_bacc_drop,
        model=model,
    )
    return StageCall(stage.run, settings)
