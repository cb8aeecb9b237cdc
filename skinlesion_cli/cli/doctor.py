"""`skinlesion doctor`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from skinlesion_cli.cli.root import StageCall, command

EXAMPLE = """
skinlesion doctor
skinlesion doctor --network
skinlesion doctor --json | jq '.figures.findings[] | select(.state != "ok")'
"""
NETWORK = "Also ask the servers that download and train fetch from; nothing connects otherwise."


@command("doctor", example=EXAMPLE, section="Workspace")
def doctor(
    network: Annotated[bool, typer.Option("--network", help=NETWORK)] = False,
    *,
    workspace: Path,
) -> StageCall[Any]:
    """Look whether this machine can do the work, and say what to do where it cannot.

    Versions, devices, threads, disk, weights and models, and a prediction with a known answer. Exit code 1 where
    something is broken.
    """
    from skinlesion_cli.stages.doctor import stage

    return StageCall(stage.run, stage.DoctorConfig(workspace, network))
