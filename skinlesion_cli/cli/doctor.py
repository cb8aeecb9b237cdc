"""`skinlesion doctor`"""

from __future__ import annotations

from typing import Annotated

import typer

from skinlesion_cli.cli import options, render
from skinlesion_cli.cli.root import command

EXAMPLE = """
skinlesion doctor
skinlesion doctor --network
skinlesion doctor --json | jq '.figures.findings[] | select(.state != "ok")'
"""
NETWORK = "Also ask the servers that download and train fetch from; nothing connects otherwise."


@command("doctor", example=EXAMPLE, section="Workspace")
def doctor(
    network: Annotated[bool, typer.Option("--network", help=NETWORK)] = False,
    workspace: options.WorkspaceOption = options.DEFAULT_WORKSPACE,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Look whether this machine can do the work, and say what to do where it cannot.

    Versions, devices, threads, disk, weights and models, and a prediction with a known answer. Exit code 1 where
    something is broken.
    """
    from skinlesion_cli.stages.doctor import stage

    with render.reporter(quiet=quiet) as reporter:
        result = stage.run(stage.DoctorConfig(workspace, network), reporter)
    render.finish(result, as_json=as_json, quiet=quiet)
