"""`skinlesion info`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from skinlesion_cli.cli.root import StageCall, command

EXAMPLE = """
skinlesion info
skinlesion info --dataset
skinlesion info --workspace ./clinic-a --json
"""


@command("info", example=EXAMPLE, section="Workspace")
def info(
    dataset: Annotated[
        bool,
        typer.Option("--dataset", help="Describe the dataset: classes by part, lesions, duplicates, sizes."),
    ] = False,
    *,
    workspace: Path,
) -> StageCall[Any]:
    """Show what is in the workspace: completed stages, their figures, and what to run next."""
    from skinlesion_cli.stages.info.settings import InfoSettings

    if dataset:
        from skinlesion_cli.stages.info.dataset import run
    else:
        from skinlesion_cli.stages.info.stage import run
    return StageCall(run, InfoSettings(workspace=workspace))
