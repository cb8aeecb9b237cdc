"""`skinlesion pack`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from skinlesion_cli.cli.root import StageCall, command

EXAMPLE = """
skinlesion pack --output our-model
skinlesion predict ./images --model our-model
"""
PREDICTIONS = "Also pack the validation predictions, with the ids and labels of all validation images."


@command("pack", example=EXAMPLE, section="Workspace")
def pack(
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the packed model.")],
    with_predictions: Annotated[bool, typer.Option("--with-predictions", help=PREDICTIONS)] = False,
    *,
    workspace: Path,
) -> StageCall[Any]:
    """Copy the finished model, without any image, to a folder that can be shared."""
    from skinlesion_cli.stages import pack as stage

    return StageCall(
        stage.run, stage.PackSettings(workspace=workspace, output=output, with_predictions=with_predictions)
    )
