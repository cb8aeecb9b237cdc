"""`skinlesion ensemble`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skinlesion_cli.cli import options, render
from skinlesion_cli.cli.app import command

EXAMPLE = """
skinlesion ensemble
skinlesion ensemble densenet121 resnet50 --method equal
"""


@command("ensemble", example=EXAMPLE, section="Pipeline")
def ensemble(
    members: Annotated[
        list[str] | None, typer.Argument(help="Trained networks to combine; default: all.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="Weights: bacc (proportional to validation BACC) or equal.")
    ] = "bacc",
    tta: Annotated[
        str, typer.Option("--tta", help="Views to average: d4 (8 views), flips (4), none.")
    ] = "d4",
    workspace: options.WorkspaceOption = options.DEFAULT_WORKSPACE,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Combine trained networks by their stored validation predictions."""
    from skinlesion_cli.stages import ensemble as stage

    config = stage.EnsembleConfig(
        workspace=Path(workspace), members=tuple(members or ()), method=method, tta_mode=tta
    )
    with render.reporter(quiet=quiet) as reporter:
        result = stage.run(config, reporter)
    render.finish(result, as_json=as_json, quiet=quiet)
