"""`skinlesion info`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skinlesion_cli.cli import options, render
from skinlesion_cli.cli.root import command

EXAMPLE = """
skinlesion info
skinlesion info --dataset
skinlesion info --workspace ./clinic-a --json
"""


@command("info", example=EXAMPLE, section="Workspace")
def info(
    dataset: Annotated[
        bool,
        typer.Option("--dataset", help="Look at the dataset: classes by part, lesions, duplicates, sizes."),
    ] = False,
    workspace: options.WorkspaceOption = options.DEFAULT_WORKSPACE,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Show what is in the workspace: stages done, their figures, and what to run next."""
    if dataset:
        from skinlesion_cli.stages.info import dataset as about_dataset

        with render.reporter(quiet=quiet) as reporter:
            result = about_dataset.run(Path(workspace), reporter)
        return render.finish(result, as_json=as_json, quiet=quiet)
    from skinlesion_cli.stages.info import stage

    result = stage.run(Path(workspace))
    render.finish(result, as_json=as_json, quiet=quiet)
