"""`skinlesion predict`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from skinlesion_cli.cli import options, render
from skinlesion_cli.cli.root import command

EXAMPLE = """
skinlesion predict ./images --cam
skinlesion predict a.jpg b.png --output results.csv
find . -name '*.jpg' | skinlesion predict - --quiet
"""


@command("predict", example=EXAMPLE, section="Pipeline")
def predict(
    inputs: Annotated[list[str], typer.Argument(help="Image files and folders; - reads a list from stdin.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV file to write.")] = Path(
        "predictions.csv"
    ),
    cam: Annotated[
        bool, typer.Option("--cam", help="Also write Grad-CAM overlays of the decided class as PNG.")
    ] = False,
    device: options.DeviceOption = "auto",
    workspace: options.WorkspaceOption = options.DEFAULT_WORKSPACE,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Predict images with the calibrated ensemble: one CSV row an image."""
    from skinlesion_cli.stages import predict as stage

    named = [name for name in inputs if name != "-"]
    listed = (line.rstrip("\n") for line in sys.stdin) if "-" in inputs else ()
    config = stage.PredictConfig(
        workspace=workspace, inputs=named, listed=listed, output=output, cam=cam, device=device
    )
    with render.reporter(quiet=quiet) as reporter:
        result = stage.run(config, reporter)
    render.finish(result, as_json=as_json, quiet=quiet)
