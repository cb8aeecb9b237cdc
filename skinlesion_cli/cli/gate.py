"""`skinlesion gate`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from skinlesion_cli.cli.root import StageCall, command

EXAMPLE = """
skinlesion gate
skinlesion gate --false-alarm-rate 0.01
"""


@command("gate", example=EXAMPLE, section="Pipeline")
def gate(
    false_alarm_rate: Annotated[
        float, typer.Option(help="Share of good images that all checks together may flag.")
    ] = 0.02,
    images: Annotated[int, typer.Option(min=200, help="Maximum number of images to fit on.")] = 4000,
    *,
    workspace: Path,
) -> StageCall[Any]:
    """Fit the quality gate: blurred, dark, hairy, inked, plain or unfamiliar images are flagged from then on.

    It also lists the training images, so that `predict` says which images the model has seen in training.
    """
    from skinlesion_cli.stages.quality_gate import stage

    return StageCall(
        stage.run, stage.GateSettings(workspace=workspace, false_alarm_rate=false_alarm_rate, images=images)
    )
