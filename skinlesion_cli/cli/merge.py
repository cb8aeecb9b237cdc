"""`skinlesion merge`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from skinlesion_cli.cli.root import StageCall, command

EXAMPLE = """
skinlesion merge part-*.csv --output all.csv
"""


@command("merge", example=EXAMPLE, section="Pipeline")
def merge(
    shards: Annotated[list[Path], typer.Argument(help="Tables of all shards, in any order.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Table to write.")],
) -> StageCall[Any]:
    """Join the tables that `predict --shard` wrote, in the order of the inputs."""
    from skinlesion_cli.stages import merge as stage

    return StageCall(stage.run, stage.MergeSettings(shards=tuple(shards), output=output))
