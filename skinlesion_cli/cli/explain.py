"""`skinlesion explain`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from skinlesion_cli.cli import choices, options
from skinlesion_cli.cli.choices import one_of
from skinlesion_cli.cli.root import StageCall, command

EXAMPLE = """
skinlesion explain ./images
skinlesion explain lesion.jpg --class MEL --cam-tta --cam-style contour
skinlesion explain ./images --class all --method layercam --raw npz --output maps
skinlesion explain ./images --check
"""

CLASSES = "Class to explain, one of those of the model, or all. Repeatable. Default: the decided class."
METHOD = (
    "How maps are computed: {names}. fused and gradcam need no backward pass; "
    "the others use pytorch-grad-cam."
)
CAM_TTA = "Average the maps over the views that prediction averages."
RAW = "Also write the maps themselves: {names}. png16 has the size of the image."
CHECK = "Check whether the maps depend on what this model has learned; writes no overlays."


@command("explain", example=EXAMPLE, section="Pipeline")
def explain(
    inputs: Annotated[list[str], typer.Argument(help="Image files and folders; - reads a list from stdin.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the overlays and maps.csv.")
    ] = Path("explanations"),
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", help=CLASSES, autocompletion=choices.classes_or_all),
    ] = None,
    method: Annotated[
        str,
        one_of("--method", help=METHOD, known="explain.methods.METHODS"),
    ] = "fused",
    cam_tta: Annotated[bool, typer.Option("--cam-tta", help=CAM_TTA)] = False,
    style: options.CamStyleOption = "side-by-side",
    raw: Annotated[str | None, one_of("--raw", help=RAW, known="explain.writer.RAW_KINDS")] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help=CHECK),
    ] = False,
    runtime: options.RuntimeOption = "auto",
    device: options.DeviceOption = "auto",
    model: options.ModelOption = None,
    *,
    workspace: Path,
) -> StageCall[Any]:
    """Overlay the regions that support its class on each image, with Grad-CAM or another activation map."""
    named, listed = options.named_and_listed(inputs)
    if check:
        from skinlesion_cli.errors import UsageError
        from skinlesion_cli.stages.explain import check as check_stage

        if runtime not in ("auto", "torch"):
            raise UsageError(f"--check needs torch, not --runtime {runtime}", "Omit --runtime.")
        return StageCall(
            check_stage.run,
            check_stage.CheckSettings(
                workspace=workspace, inputs=named, listed=listed, method=method, device=device, model=model
            ),
        )
    from skinlesion_cli.stages.explain import stage

    settings = stage.ExplainSettings(
        workspace=workspace,
        inputs=named,
        listed=listed,
        output=output,
        classes=tuple(classes or ()),
        method=method,
        cam_tta=cam_tta,
        style=style,
        raw=raw,
        runtime=runtime,
        device=device,
        model=model,
    )
    return StageCall(stage.run, settings)
