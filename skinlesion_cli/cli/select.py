"""`skinlesion select`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from skinlesion_cli.cli import options, render
from skinlesion_cli.cli.choices import one_of
from skinlesion_cli.cli.root import command

EXAMPLE = """
skinlesion select ./unlabelled --count 50
skinlesion select ./unlabelled --by disagreement --output to-label.csv
"""

BY = "mixed (uncertain and unlike one another), margin, entropy, disagreement (of the networks) or diversity."


@command("select", example=EXAMPLE, section="Pipeline")
def select(
    inputs: Annotated[list[str], typer.Argument(help="Image files and folders; - reads a list from stdin.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The list to label, as CSV.")] = Path(
        "to-label.csv"
    ),
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many images to choose.")] = 100,
    strategy: Annotated[
        str,
        one_of("--by", help=BY, known="decisions.active_learning.STRATEGIES"),
    ] = "mixed",
    device: options.DeviceOption = "auto",
    workspace: options.WorkspaceOption = options.DEFAULT_WORKSPACE,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Choose the unlabelled images that are most worth labelling next."""
    from skinlesion_cli.data.reading.inputs import lines
    from skinlesion_cli.stages import select as stage

    named = [name for name in inputs if name != "-"]
    listed = lines(sys.stdin.buffer) if "-" in inputs else ()
    config = stage.SelectConfig(workspace, named, output, listed, count, strategy, device)
    with render.reporter(quiet=quiet) as reporter:
        result = stage.run(config, reporter)
    render.finish(result, as_json=as_json, quiet=quiet)
