"""`skinlesion ensemble`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from skinlesion_cli.cli import choices
from skinlesion_cli.cli.choices import one_of
from skinlesion_cli.cli.root import StageCall, command

EXAMPLE = """
skinlesion ensemble
skinlesion ensemble densenet121 resnet50 --method equal
skinlesion ensemble --predictions a.csv b.csv --truth truth.csv --method stacked
"""

MEMBERS = "Trained networks to combine, or further CSVs after --predictions. Default: all networks."
METHOD = (
    "How to combine the members: {names}. bacc weights them by their balanced accuracy on validation "
    "images; stacked fits the weights."
)
TTA = (
    "Views to average: {names}. d4 and zoom have 8 views (half of zoom's show only the centre), crops "
    "has 16 at four scales, flips has 4, published has the 10 random rounds of the published system."
)


@command("ensemble", example=EXAMPLE, section="Pipeline")
def ensemble(
    members: Annotated[
        list[str] | None,
        typer.Argument(help=MEMBERS, autocompletion=choices.members),
    ] = None,
    method: Annotated[str, one_of("--method", help=METHOD, known="decisions.ensemble.METHODS")] = "bacc",
    tta: Annotated[str, one_of("--tta", help=TTA, known="inference.tta.MODES")] = "d4",
    predictions: Annotated[
        list[Path] | None,
        typer.Option(
            "--predictions",
            help="CSVs of predictions made elsewhere, instead of trained networks. Repeatable.",
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(
            help="CSV with labels (and lesion_id) for --predictions. Default: the dataset of the workspace."
        ),
    ] = None,
    export: Annotated[
        bool,
        typer.Option(
            "--export/--no-export",
            help="Write the ONNX graphs of the networks, with which prediction needs no torch.",
        ),
    ] = True,
    *,
    workspace: Path,
) -> StageCall[Any]:
    """Combine networks by their predictions for the validation images, stored or from CSVs."""
    from skinlesion_cli.stages.ensemble import stage

    names = list(members or ())
    tables = [*(predictions or ()), *(map(Path, names) if predictions else ())]
    settings = stage.EnsembleSettings(
        workspace=Path(workspace),
        members=() if predictions else tuple(names),
        tables=tuple(tables),
        truth=truth,
        method=method,
        tta_mode=tta,
        export=export,
    )
    return StageCall(stage.run, settings)
