"""`skinlesion pack`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skinlesion_cli.cli import options, render
from skinlesion_cli.cli.root import command

EXAMPLE = """
skinlesion pack --output our-model
skinlesion predict ./images --model our-model
"""
PREDICTIONS = "Pack the validation predictions too, with the ids and labels of all validation images."


@command("pack", example=EXAMPLE, section="Workspace")
def pack(
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the packed model.")],
    with_predictions: Annotated[bool, typer.Option("--with-predictions", help=PREDICTIONS)] = False,
    workspace: options.WorkspaceOption = options.DEFAULT_WORKSPACE,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Copy the finished model, without any image, to a folder that can be handed on."""
    from skinlesion_cli.stages import pack as stage

    with render.reporter(quiet=quiet) as reporter:
        result = stage.run(stage.PackConfig(workspace, output, with_predictions), reporter)
    render.finish(result, as_json=as_json, quiet=quiet)
