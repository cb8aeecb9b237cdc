"""`skinlesion evaluate`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from skinlesion_cli.cli import choices, options
from skinlesion_cli.cli.choices import one_of
from skinlesion_cli.cli.root import StageCall, command

EXAMPLE = """
skinlesion evaluate
skinlesion evaluate --against argmax --thresholded
skinlesion evaluate --source densenet121 --part val
skinlesion evaluate --source ours.csv --against theirs.csv --truth truth.csv
skinlesion evaluate --classes melanoma
skinlesion evaluate --prevalence MEL=0.02,BCC=0.03 --beside ./earlier-evaluation
"""

SOURCE = "What to evaluate: ensemble, the name of a trained network, or a table of predictions."
DECISION = "Which decision to evaluate: {names}. Default: calibrated, if there is a calibration."
AGAINST = "Compare image by image with argmax, the file of another calibration, a network or a table."

PREVALENCE = (
    "Also compute predictive values, risks, triage shares and net benefit for a population with these class "
    "shares, such as MEL=0.02,BCC=0.03; the other classes share the rest as in the data."
)
CLASSES = (
    "Judge by these coarser classes, whose probabilities are sums of the model's: {names}, or a YAML file. "
    "Default: the classes of the labels."
)
BESIDE = "Folder of an earlier evaluation to show beside this one, such as another dataset. Repeatable."


@command("evaluate", example=EXAMPLE, section="Pipeline")
def evaluate(
    source: Annotated[str, typer.Option(help=SOURCE, autocompletion=choices.networks)] = "ensemble",
    part: Annotated[
        str, one_of("--part", help="Part of the split: {names}.", known="artifacts.split.HELD_OUT")
    ] = "test",
    decision: Annotated[
        str | None,
        one_of("--decision", help=DECISION, known="decisions.policies.registry.DECISIONS"),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help=AGAINST, autocompletion=choices.networks),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(
            help="CSV with labels (and lesion_id) for a table. Default: the dataset of the workspace."
        ),
    ] = None,
    classes: Annotated[
        str | None, choices.suggested("--classes", help=CLASSES, known="taxonomy.shipped.SHIPPED")
    ] = None,
    thresholded: Annotated[
        bool,
        typer.Option("--thresholded", help="In challenge.csv, make the decision the maximum of its row."),
    ] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Also write report.html, one page that works offline.")
    ] = False,
    report_pdf: Annotated[
        Path | None,
        typer.Option(
            "--report-pdf",
            help="Also print that page to this PDF file; implies --report and needs Chromium or Chrome.",
        ),
    ] = None,
    resamples: Annotated[int, typer.Option(min=0, help="Bootstrap resamples, clustered by lesion.")] = 2000,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write to. Default: in the workspace.")
    ] = None,
    prevalence: Annotated[str | None, typer.Option(help=PREVALENCE)] = None,
    beside: Annotated[list[Path] | None, typer.Option("--beside", help=BESIDE)] = None,
    seed: options.SeedOption = 0,
    *,
    workspace: Path,
) -> StageCall[Any]:
    """Evaluate labelled predictions: figures with intervals, plots, and the official challenge table."""
    from skinlesion_cli.decisions.evaluation.prevalence import parse_prevalence
    from skinlesion_cli.stages.evaluate import stage

    settings = stage.EvaluateSettings(
        workspace=Path(workspace),
        source=source,
        part=part,
        decision=decision,
        against=against,
        truth=truth,
        classes=classes,
        thresholded=thresholded,
        n_resamples=resamples,
        seed=seed,
        output=output,
        report=report or report_pdf is not None,
        report_pdf=report_pdf,
        prevalence=None if prevalence is None else parse_prevalence(prevalence),
        beside=tuple(beside or ()),
    )
    return StageCall(stage.run, settings)
