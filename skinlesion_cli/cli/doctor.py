"""`skinlesion doctor`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from skinlesion_cli.cli.root import StageCall, command

EXAMPLE = """
skinlesion doctor
skinlesion doctor --network --training
skinlesion doctor --json | jq '.figures.findings[] | select(.state != "ok")'
"""
NETWORK = "Also contact the servers that download and train fetch from. Without it, nothing connects."
TRAINING = "Also load what training needs, torch among it, which takes some seconds."


@command("doctor", example=EXAMPLE, section="Workspace", threads="as set")
def doctor(
    network: Annotated[bool, typer.Option("--network", help=NETWORK)] = False,
    training: Annotated[bool, typer.Option("--training", help=TRAINING)] = False,
    *,
    workspace: Path,
) -> StageCall[Any]:
    """Check whether this machine can do the work, and say what to do where it cannot.

    Checks versions, devices, threads, disk, weights and models, and makes a prediction whose answer is known.
    The exit code is 1 if something is broken.
    """
    from skinlesion_cli.stages.doctor.finding import DoctorSettings
    from skinlesion_cli.stages.doctor.stage import run

    return StageCall(run, DoctorSettings(workspace=workspace, network=network, training=training))
