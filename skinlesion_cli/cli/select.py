"""`skinlesion select`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from skinlesion_cli.cli import options
from skinlesion_cli.cli.choices import one_of
from skinlesion_cli.cli.root import StageCall, command

EXAMPLE = """
skinlesion select ./unlabelled --count 50
skinlesion select ./unlabelled --by disagreement --output to-label.csv
skinlesion select ./unlabelled --model builtin
"""

BY = (
    "How to select: {names}. mixed takes uncertain images that differ from one another; disagreement is "
    "that of the networks."
)


@command("select", example=EXAMPLE, section="Pipeline")
def select(
    inputs: Annotated[list[str], typer.Argument(help="Image files and folders; - reads a list from stdin.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV to write, the list to label.")] = Path(
        "to-label.csv"
    ),
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Number of images to select.")] = 100,
    strategy: Annotated[
        str,
        one_of("--by", help=BY, known="decisions.active_learning.STRATEGIES"),
    ] = "mixed",
    model: options.ModelOption = None,
    runtime: options.RuntimeOption = "auto",
    device: options.DeviceOption = "auto",
    *,
    workspace: Path,
) -> StageCall[Any]:
    """Select the unlabelled images that are most worth labelling next."""
    from skinlesion_cli.stages import select as stage

    named, listed = options.named_and_listed(inputs)
    settings = stage.SelectSettings(
        workspace=workspace,
        inputs=named,
        listed=listed,
        output=output,
        count=count,
        strategy=strategy,
        model=model,
        runtime=runtime,
        device=device,
    )
    return StageCall(stage.run, settings)
