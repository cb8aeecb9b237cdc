"""`skinlesion download`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skinlesion_cli.cli import options, render
from skinlesion_cli.cli.app import command

EXAMPLE = """
skinlesion download --from ./isic2018
skinlesion download --from ./isic2018 --split grouped --seed 7
"""


@command("download", example=EXAMPLE, section="Pipeline")
def download(
    source: Annotated[
        Path,
        typer.Option("--from", help="A copy of ISIC 2018 Task 3 in the official layout: folders or zips."),
    ],
    split: Annotated[
        str,
        typer.Option(
            help="official (train and validation by lesion, official test set) or grouped (60/20/20)."
        ),
    ] = "official",
    link: Annotated[
        bool, typer.Option("--link", help="Hard-link images instead of copying, where the disk allows it.")
    ] = False,
    seed: options.SeedOption = 42,
    workspace: options.WorkspaceOption = options.DEFAULT_WORKSPACE,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Bring a dataset into the workspace and split it by lesion."""
    from skinlesion_cli.stages import download as stage

    config = stage.DownloadConfig(workspace=workspace, source=source, split=split, seed=seed, link=link)
    with render.reporter(quiet=quiet) as reporter:
        result = stage.run(config, reporter)
    render.finish(result, as_json=as_json, quiet=quiet)
