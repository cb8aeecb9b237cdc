"""`skinlesion average`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Option

from skinlesion_cli.cli import options
from skinlesion_cli.cli.choices import suggested
from skinlesion_cli.cli.root import StageCall, command

EXAMPLE = """
skinlesion average --model ./first --model ./second
skinlesion average --model ./one --model ./two --model ./three --half -w ./mean
"""

MODEL_HELP = (
    "Finished model to average: the folder of a packed model, a workspace, or builtin. Repeat "
    "it for each model."
)
HALF_HELP = "Store the weights in half precision: half the size; all later results are computed with those."

Models = Annotated[list[str], suggested("--model", help=MODEL_HELP, known="artifacts.bundle.MODEL_NAMES")]
Half = Annotated[bool, Option("--half", help=HALF_HELP)]
Fresh = Annotated[bool, Option("--fresh", help="Replace networks that were trained with other settings.")]


@command("average", example=EXAMPLE, section="Pipeline")
def average(
    models: Models,
    half: Half = False,
    fresh: Fresh = False,
    device: options.DeviceOption = "auto",
    *,
    workspace: Path,
) -> StageCall[Any]:
    """Average the weights of models that were trained from the same start; no training needed.

    The mean is stored in the workspace like a trained network, with its predictions on the validation images
    of the workspace, which none of the models may have been trained on.
    """
    from skinlesion_cli.stages.train import averaging

    settings = averaging.AverageSettings(
        workspace=workspace, models=tuple(models), device=device, half=half, fresh=fresh
    )
    return StageCall(averaging.run, settings)
