"""`skinlesion pack`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from skinlesion_cli.cli.root import StageCall, command

EXAMPLE = """
skinlesion pack --output our-model
skinlesion predict ./images --model our-model
skinlesion pack --output our-model --push hf://our-clinic/our-model
"""
PREDICTIONS = "Also pack the validation predictions, with the ids and labels of all validation images."
PUSH = "Also upload it to the Hugging Face hub, with a card as its README. Log in first: `hf auth login`."
PUBLIC = "Make the repository that --push creates public. Default: private."
CARD = "Markdown file that becomes the README. Default: a card made of the model's own figures."


@command("pack", example=EXAMPLE, section="Workspace")
def pack(
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the packed model.")],
    with_predictions: Annotated[bool, typer.Option("--with-predictions", help=PREDICTIONS)] = False,
    push: Annotated[str | None, typer.Option("--push", help=PUSH, metavar="hf://OWNER/NAME")] = None,
    public: Annotated[bool, typer.Option("--public", help=PUBLIC)] = False,
    card: Annotated[Path | None, typer.Option("--card", help=CARD)] = None,
    *,
    workspace: Path,
) -> StageCall[Any]:
    """Copy the finished model, without any image, to a folder that can be shared."""
    from skinlesion_cli.stages import pack as stage

    settings = stage.PackSettings(
        workspace=workspace,
        output=output,
        with_predictions=with_predictions,
        push=push,
        public=public,
        card=card,
    )
    return StageCall(stage.run, settings)
