"""`skinlesion bench`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from skinlesion_cli.cli import options
from skinlesion_cli.cli.root import StageCall, command

EXAMPLE = """
skinlesion bench
skinlesion bench a.jpg b.jpg --images 250000 --runtime torch
"""


@command("bench", example=EXAMPLE, section="Workspace", threads="as set")
def bench(
    sample: Annotated[
        list[Path] | None,
        typer.Argument(help="Images to measure on. Default: one generated image of 600 x 450 pixels."),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Estimate how long this many images take.")] = 10_000,
    seconds: Annotated[float, typer.Option(min=0.1, help="Time to spend on each measurement.")] = 3.0,
    runtime: options.RuntimeOption = "auto",
    device: options.DeviceOption = "auto",
    model: options.ModelOption = None,
    *,
    workspace: Path,
) -> StageCall[Any]:
    """Measure how fast this machine predicts: decoding, networks, views, maps, writing, and all together."""
    from skinlesion_cli.stages import bench as stage

    settings = stage.BenchSettings(
        workspace=workspace,
        sample=tuple(sample or ()),
        images=images,
        seconds=seconds,
        runtime=runtime,
        device=device,
        model=model,
    )
    return StageCall(stage.run, settings)
