"""What `evaluate` is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import NonNegativeInt

from skinlesion_cli.artifacts.split import HELD_OUT
from skinlesion_cli.config.settings import StageSettings, one_of
from skinlesion_cli.decisions.policies.registry import DECISIONS

ENSEMBLE = "ensemble"


class EvaluateSettings(StageSettings):
    """What to judge.

    `source` : `ensemble`, the name of a trained network, or a CSV. `part` : val or test, for the first two.
    `decision` : `calibrated` or `argmax`; None: calibrated where there is a calibration of this ensemble.
    `against` : what to compare with, image by image: another source, `argmax` for the same without
    thresholds, or the file of another calibration of the ensemble.
    `classes` : judge by these coarser classes instead of the model's own: a shipped list, or a YAML file.
    `thresholded` : in the official table, the decision is the maximum of its row.
    `prevalence` : class -> share in another population, for which predictive values, risks and net benefit
    are computed too. `beside` : folders of earlier evaluations, whose figures are shown beside these.
    `report_pdf` : where to print the page of `report` to.
    """

    workspace: Path
    source: str = ENSEMBLE
    part: Annotated[str, one_of(HELD_OUT)] = "test"
    decision: Annotated[str, one_of(DECISIONS)] | None = None
    against: str | None = None
    truth: Path | None = None
    classes: str | None = None
    thresholded: bool = False
    n_resamples: NonNegativeInt = 2000
    seed: NonNegativeInt = 0
    output: Path | None = None
    report: bool = False
    report_pdf: Path | None = None
    prevalence: Mapping[str, float] | None = None
    beside: tuple[Path, ...] = ()
