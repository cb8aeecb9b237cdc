"""`skinlesion merge`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skinlesion_cli.cli import options, render
from skinlesion_cli.cli.root import command

EXAMPLE = """
skinlesion merge part-*.csv --output all.csv
"""


@command("merge", example=EXAMPLE, section="Pipeline")
def merge(
    shards: Annotated[list[Path], typer.Argument(help="Tables of all shards, in any order.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Table to write.")],
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Join the tables that `predict --shard` wrote, in the order of the inputs."""
    from skinlesion_cli.stages import merge as stage

    with render.reporter(quiet=quiet) as reporter:
        result = stage.run(stage.MergeConfig(shards, output), reporter)
    render.finish(result, as_json=as_json, quiet=quiet)
