"""`skinlesion calibrate`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skinlesion_cli.cli import options, render
from skinlesion_cli.cli.app import command

EXAMPLE = """
skinlesion calibrate
skinlesion calibrate --policy published

"""


@command("calibrate", example=EXAMPLE, section="Pipeline")
def calibrate(
    policy: Annotated[
        str, typer.Option(help="How thresholds are found: guaranteed, published, cost or none.")
    ] = "guaranteed",
    workspace: options.WorkspaceOption = options.DEFAULT_WORKSPACE,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Fit probabilities, thresholds and triage on the stored validation predictions."""
    from skinlesion_cli.decisions.fit import FitSettings
    from skinlesion_cli.stages import calibrate as stage

    config = stage.CalibrateConfig(Path(workspace), FitSettings(policy=policy))  # type: ignore[arg-type]
    with render.reporter(quiet=quiet) as reporter:
        result = stage.run(config, reporter)
    render.finish(result, as_json=as_json, quiet=quiet)
