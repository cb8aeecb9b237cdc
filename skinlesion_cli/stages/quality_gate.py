"""Fit the quality gate on training images, and measure its false alarms on validation images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, PositiveInt

from skinlesion_cli.artifacts.files import exclusive
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.quality_gate import StoredQualityGate
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.settings import StageSettings
from skinlesion_cli.data.quality import statistics
from skinlesion_cli.data.reading.images import read_image
from skinlesion_cli.decisions.quality_gate import CHECKS, FALSE_ALARM_RATE, STATISTICS, fit_gate
from skinlesion_cli.decisions.statistics.bounds import binomial_interval
from skinlesion_cli.parallel import available_cores, in_order
from skinlesion_cli.progress import Reporter, Task
from skinlesion_cli.stages.result import StageResult, Table


class GateSettings(StageSettings):
    """`images`: at most so many training images to fit on, and validation images to measure on."""

    workspace: Path
    false_alarm_rate: Annotated[float, Field(gt=0.0, lt=0.5)] = FALSE_ALARM_RATE
    images: PositiveInt = 4000


def run(config: GateSettings, reporter: Reporter) -> StageResult:
    """Write `calibration/gate.json`; from then on `predict` judges every image."""
    workspace = Workspace(config.workspace)
    everything = Manifest.load(workspace.manifest)
    parts = Split.load(workspace.split, everything)
    # With folds any of them serves: the gate knows no network, only how images of this kind look.
    chosen = parts.fitted_and_judged(0 if parts.n_folds else None)
    training, validation = (_spread(ids, config.images) for ids in chosen)
    with reporter.task("measuring", total=len(training) + len(validation), unit="images") as task:
        fitted_on = _measured(workspace, everything, training, task)
        judged_on = _measured(workspace, everything, validation, task)
    gate = fit_gate(STATISTICS, fitted_on, config.false_alarm_rate)
    verdicts = [gate.verdict(dict(zip(STATISTICS, row, strict=True))) for row in judged_on]
    alarms = sum(verdict.flagged for verdict in verdicts)
    by_check = Counter(check for verdict in verdicts for check in verdict.failed)
    low, high = binomial_interval(alarms, len(verdicts))
    share = alarms / len(verdicts) if verdicts else None
    figures = {
        "fitted_on_images": len(fitted_on),
        "validation_images": len(verdicts),
        "false_alarms": alarms,
        "false_alarm_rate": share,
        "interval_95": [None if np.isnan(bound) else bound for bound in (low, high)],
        "wanted_rate": config.false_alarm_rate,
        "by_check": {check: by_check[check] for check in CHECKS},
    }
    with exclusive(workspace.gate.parent, "gate"):
        assert parts.artifact is not None
        StoredQualityGate(gate, figures).save(workspace.gate, inputs={"split": parts.artifact})
    told = "undefined" if share is None else f"{share:.1%} (95 % interval {low:.1%} to {high:.1%})"
    return StageResult(
        command="gate",
        headline=[
            f"quality gate fitted on {len(fitted_on):,} training images; false alarms on {len(verdicts):,} "
            f"validation images: {told}"
        ],
        figures=figures,
        tables=[Table("Alarms on validation", ["check", "images"], [[c, by_check[c]] for c in CHECKS])],
        artifacts=[str(workspace.gate)],
        next_command="skinlesion predict ./images",
    )


def _spread(ids: list[str], most: int) -> list[str]:
    return ids if len(ids) <= most else [ids[i] for i in np.linspace(0, len(ids) - 1, most).astype(int)]


def _measured(workspace: Workspace, everything: Manifest, ids: list[str], task: Task) -> np.ndarray:
    files: Iterable[Path] = [workspace.images / file for file in everything.rows(ids)["file"]]
    found = []
    for values in in_order(files, _statistics_of, threads=available_cores()):
        found.append([values[name] for name in STATISTICS])
        task.advance()
    return np.array(found).reshape(-1, len(STATISTICS))


def _statistics_of(path: Path) -> dict[str, float]:
    return statistics(read_image(path))
