"""`skinlesion calibrate`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from skinlesion_cli.cli.choices import one_of
from skinlesion_cli.cli.root import StageCall, command

EXAMPLE = """
skinlesion calibrate
skinlesion calibrate --target MEL:sensitivity=0.90,specificity=0.70 --target AKIEC:sensitivity=0.75
skinlesion calibrate --policy published --adaptive decision
skinlesion calibrate --policy cost --cost MEL=20 --cost BCC=5 --cost AKIEC=5
"""
ADAPTIVE = "Let prediction stop early once more forward passes are unlikely to change the `decision`, or the `triage` level too."
TARGET = "What a class has to reach: sensitivity, and specificity where wanted, as above. Repeatable."
POLICY = "How thresholds are found: guaranteed (default), published, cost, none."
PROBABILITIES = "Probability calibration: temperature, vector or none."
PRIORITY = "Class that wins where several thresholds fire, the first named first."


@command("calibrate", example=EXAMPLE, section="Pipeline")
def calibrate(
    policy: Annotated[
        str | None, one_of("--policy", help=POLICY, known="decisions.policies.registry.POLICIES")
    ] = None,
    targets: Annotated[list[str] | None, typer.Option("--target", help=TARGET)] = None,
    priority: Annotated[
        list[str] | None, one_of("--priority", help=PRIORITY, known="taxonomy.CLASS_NAMES")
    ] = None,
    confidence: Annotated[
        float | None, typer.Option(help="Joint confidence level of all guarantees; default 0.95.")
    ] = None,
    horizon: Annotated[
        int | None,
        typer.Option(min=1, help="New lesions to judge on; default: as many as a guarantee rests on."),
    ] = None,
    max_bacc_loss: Annotated[
        float | None,
        typer.Option(help="What all thresholds together may cost in balanced accuracy; default 0.05."),
    ] = None,
    probabilities: Annotated[
        str | None, one_of("--probabilities", help=PROBABILITIES, known="decisions.calibration.METHODS")
    ] = None,
    costs: Annotated[
        list[str] | None,
        typer.Option("--cost", help="For --policy cost: MALIGNANT_CLASS=COST of missing it."),
    ] = None,
    coverage: Annotated[float | None, typer.Option(help="Of the prediction sets; default 0.90.")] = None,
    malignant_sensitivity: Annotated[
        float | None, typer.Option(help="Of the referral of malignant lesions; default 0.90.")
    ] = None,
    policy_file: Annotated[Path | None, typer.Option(help="YAML with these settings; options win.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the calibration here, to compare with.")
    ] = None,
    adaptive: Annotated[
        str | None, one_of("--adaptive", help=ADAPTIVE, known="decisions.adaptive.stopping.PROTECTABLE")
    ] = None,
    *,
    workspace: Path,
) -> StageCall[Any]:
    """Fit probabilities, thresholds and triage on the stored validation predictions, with guarantees on new images."""
    from skinlesion_cli.config.policy import load_policy
    from skinlesion_cli.decisions.adaptive.stopping import parse_protects
    from skinlesion_cli.stages.calibrate import stage

    given: dict[str, object] = {"policy": policy, "confidence": confidence, "horizon": horizon}
    given |= {"max_bacc_loss": max_bacc_loss, "probabilities": probabilities, "priority": priority or None}
    given |= {"malignant_sensitivity": malignant_sensitivity, "coverage": coverage}
    settings = load_policy(policy_file, overrides=given, targets=targets or (), costs=costs or ())
    return StageCall(
        stage.run,
        stage.CalibrateSettings(
            workspace=workspace, settings=settings, output=output, adaptive=parse_protects(adaptive)
        ),
    )
