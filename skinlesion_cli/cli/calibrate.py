"""`skinlesion calibrate`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from skinlesion_cli.cli import choices, options
from skinlesion_cli.cli.choices import one_of
from skinlesion_cli.cli.root import StageCall, command
from skinlesion_cli.errors import UsageError

EXAMPLE = """
skinlesion calibrate
skinlesion calibrate --target MEL:sensitivity=0.90 --target AKIEC:sensitivity=0.75 --routine-risk 0.005
skinlesion calibrate --refer-share 0.15
skinlesion calibrate --policy published --adaptive decision
skinlesion calibrate --model builtin --on ./clinic/labels.csv --output ./our-model
skinlesion calibrate --policy cost --cost MEL=20 --cost BCC=5 --cost AKIEC=5
"""
ADAPTIVE = (
    "Let prediction stop averaging views of an image once further forward passes are unlikely to change "
    "its decision (decision), or its decision and triage level (triage): {names}."
)
TARGET = (
    "What the alarm of a class has to reach, such as MEL:sensitivity=0.85; ,specificity=0.80 may follow. "
    "Repeatable."
)
POLICY = "How alarms or thresholds are chosen: {names}. Default: guaranteed."
PROBABILITIES = "How probabilities are calibrated: {names}. Default: the policy's own method."
ON = (
    "Calibrate the finished model of --model on these labelled images of your own (a CSV, or a folder "
    "with one folder "
    "per class), without training, and pack the result into the folder of --output."
)
PRIORITY = "Class that wins where several thresholds fire. Repeatable, the most important class first."


@command("calibrate", example=EXAMPLE, section="Pipeline")
def calibrate(
    policy: Annotated[
        str | None, one_of("--policy", help=POLICY, known="decisions.policies.registry.POLICIES")
    ] = None,
    targets: Annotated[
        list[str] | None, typer.Option("--target", help=TARGET, autocompletion=choices.targets)
    ] = None,
    priority: Annotated[
        list[str] | None, typer.Option("--priority", help=PRIORITY, autocompletion=choices.classes)
    ] = None,
    confidence: Annotated[
        float | None, typer.Option(help="Joint confidence level of all guarantees. Default: 0.95.")
    ] = None,
    horizon: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of new lesions that the second figure of each guarantee is for. Default: as many as "
            "in the validation data.",
        ),
    ] = None,
    probabilities: Annotated[
        str | None, one_of("--probabilities", help=PROBABILITIES, known="decisions.calibration.METHODS")
    ] = None,
    costs: Annotated[
        list[str] | None,
        typer.Option(
            "--cost", help="For --policy cost: MALIGNANT_CLASS=COST of missing that class. Repeatable."
        ),
    ] = None,
    coverage: Annotated[
        float | None, typer.Option(help="Coverage of the prediction sets. Default: 0.90.")
    ] = None,
    malignant_sensitivity: Annotated[
        float | None,
        typer.Option(help="Sensitivity of the alarm on the malignant probability. Default: 0.90."),
    ] = None,
    refer_ppv: Annotated[
        float | None,
        typer.Option(
            help="Guaranteed share of malignant images among those that are referred. Default: 0.70."
        ),
    ] = None,
    refer_share: Annotated[
        float | None,
        typer.Option(
            help="Refer this share of all images instead, those with the highest malignant probability."
        ),
    ] = None,
    routine_risk: Annotated[
        float | None,
        typer.Option(help="Guaranteed largest share of malignant images in `routine`. Default: 0.01."),
    ] = None,
    policy_file: Annotated[
        Path | None, typer.Option(help="YAML file with these settings; options take precedence.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write the calibration to this file instead, for example to compare it; with --on, "
            "the folder for the calibrated model.",
        ),
    ] = None,
    adaptive: Annotated[
        str | None, one_of("--adaptive", help=ADAPTIVE, known="decisions.adaptive.stopping.PROTECTABLE")
    ] = None,
    model: options.ModelOption = None,
    on: Annotated[Path | None, typer.Option("--on", help=ON)] = None,
    *,
    workspace: Path,
) -> StageCall[Any]:
    """Fit probabilities, thresholds and triage to validation predictions, with guarantees for new images."""
    from skinlesion_cli.artifacts.workspace import Workspace
    from skinlesion_cli.config.policy import load_policy
    from skinlesion_cli.decisions.adaptive.stopping import parse_protects

    given: dict[str, object] = {"policy": policy, "confidence": confidence, "horizon": horizon}
    given |= {"probabilities": probabilities, "priority": priority or None}
    given |= {"malignant_sensitivity": malignant_sensitivity, "coverage": coverage}
    given |= {"refer_ppv": refer_ppv, "refer_share": refer_share, "routine_risk": routine_risk}
    settings = load_policy(policy_file, overrides=given, targets=targets or (), costs=costs or ())
    if on is not None:
        from skinlesion_cli.stages.calibrate import at_home

        if model is None or output is None:
            raise UsageError(
                "--on needs a finished model and a folder for the result",
                "Example: skinlesion calibrate --model builtin --on labels.csv --output ./our-model",
            )
        return StageCall(
            at_home.run,
            at_home.RecalibrateSettings(
                model=model, on=on, output=output, fit=settings, adaptive=parse_protects(adaptive)
            ),
        )
    if model is not None:
        raise UsageError("--model is calibrated on labelled images of yours", "Name them with --on.")
    Workspace(workspace).require_ensemble(
        "Or calibrate a finished model: skinlesion calibrate --model builtin --on labels.csv --output FOLDER"
    )
    from skinlesion_cli.stages.calibrate import stage

    inputs = [policy_file] if policy_file is not None else []
    return StageCall(
        stage.run,
        stage.CalibrateSettings(
            workspace=workspace,
            fit=settings,
            output=output,
            adaptive=parse_protects(adaptive),
            inputs=inputs,
        ),
    )
