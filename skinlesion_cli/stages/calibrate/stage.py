"""Calibrate the ensemble: probabilities, thresholds and triage, with what each is worth."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, InstanceOf

from skinlesion_cli.artifacts import output_checks, own_files
from skinlesion_cli.artifacts.calibration import Calibration
from skinlesion_cli.artifacts.ensemble import Ensemble
from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.evaluation import defined
from skinlesion_cli.artifacts.files import exclusive
from skinlesion_cli.artifacts.next_command import after_calibration
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.workspace import Workspace, with_metadata
from skinlesion_cli.config.settings import StageSettings
from skinlesion_cli.decisions.adaptive.fit import CONFIDENCE, fit_adaptive
from skinlesion_cli.decisions.adaptive.stopping import Protects
from skinlesion_cli.decisions.fit import FittedRule, cross_fit, fit_rule
from skinlesion_cli.decisions.policies.registry import policy_of, targets_of
from skinlesion_cli.decisions.settings import FitSettings
from skinlesion_cli.errors import ArtifactError, UsageError
from skinlesion_cli.inference import tta
from skinlesion_cli.progress import Reporter
from skinlesion_cli.result import StageResult
from skinlesion_cli.stages.calibrate import figures, summary

# Modes of views that all differ, which a mean may stop among early.
# Fewer views leave too little to save.
_ADAPTIVE = tuple(name for name, views in tta.MODES.items() if len(set(views)) >= 8)


class CalibrateSettings(StageSettings):
    """Where, and how to fit (see `decisions.settings.FitSettings`).

    `output` is where the calibration goes, such as a second one to compare with; None: its place in the
    workspace, where prediction finds it.
    `adaptive` also fits when prediction may stop early because an image's `decision` (or its `triage` level
    too) is unlikely to change with more forward passes, and calibrates all else on what is left.
    `inputs` are the files that the settings were read from, which `output` must not replace.
    """

    workspace: Path
    fit: InstanceOf[FitSettings] = Field(default_factory=FitSettings)
    output: Path | None = None
    adaptive: Protects | None = None
    inputs: Sequence[Path] = ()


def run(settings: CalibrateSettings, reporter: Reporter) -> StageResult:
    """Fit on the merged validation predictions and write `calibration/`.

    Where networks take patient metadata, a second calibration is fitted on the predictions that were made
    with it: it decides on images of which something is known.
    """
    workspace = Workspace(settings.workspace)
    if settings.output is not None:
        output_checks.check_file(
            settings.output, own_files.is_artifact("calibration"), "a calibration", settings.inputs
        )
    ensemble = Ensemble.load(workspace.ensemble)
    assert ensemble.artifact is not None
    calibration, fitted, inputs = _fitted(ensemble, workspace.ensemble_predictions("val"), settings)
    result = summary.result(
        calibration,
        fitted,
        settings.output or workspace.calibration,
        _next_command(workspace, settings.output),
    )
    if settings.output is not None:
        with exclusive(settings.output.parent, "calibrate"):
            calibration.save(settings.output, inputs=inputs)
        return result
    informed_predictions = workspace.ensemble_predictions(with_metadata("val"))
    informed = None
    if informed_predictions.exists():
        informed = _fitted(ensemble, informed_predictions, settings)
        result = summary.with_metadata(result, informed[0], workspace.metadata_calibration)
    with exclusive(workspace.calibration.parent, "calibrate"):
        calibration.save(workspace.calibration, inputs=inputs)
        workspace.metadata_calibration.unlink(missing_ok=True)
        if informed is not None:
            informed[0].save(workspace.metadata_calibration, inputs=informed[2])
    return result


def _next_command(workspace: Workspace, output: Path | None) -> str | None:
    if output is None:
        return after_calibration(workspace)
    # A second calibration decides on nothing; it is there to be compared with the first.
    comparable = workspace.calibration.exists() and workspace.ensemble_predictions("test").exists()
    return f"skinlesion evaluate --against {shlex.quote(str(output))}" if comparable else None


def _fitted(
    ensemble: Ensemble, path: Path, settings: CalibrateSettings
) -> tuple[Calibration, FittedRule, dict[str, Artifact | str]]:
    """A calibration fitted on one table of merged predictions, and what it was made from."""
    fit_settings = settings.fit
    validation = Predictions.load(path, hint=Ensemble.HINT)
    assert ensemble.artifact is not None
    assert validation.artifact is not None
    validation.artifact.require_input("ensemble", ensemble.artifact)
    labels, lesion_ids, classes = validation.labels, validation.lesion_ids, validation.classes
    policy_of(fit_settings, classes)
    stopping, probabilities = None, validation.probabilities
    if settings.adaptive is not None:
        stopping, probabilities = _stopping(ensemble, validation, fit_settings, settings.adaptive)
    fitted = fit_rule(labels, probabilities, lesion_ids, fit_settings, classes)
    unseen = cross_fit(labels, probabilities, lesion_ids, fit_settings, classes)
    calibration = Calibration(
        rule=fitted.rule,
        policy=fit_settings.policy,
        tta_mode=tta_mode(ensemble.views) if stopping is None else tta.ADAPTIVE,
        views=ensemble.views,
        targets=tuple(asdict(target) for target in targets_of(fit_settings, classes)),
        guarantees=tuple(asdict(guarantee) for guarantee in fitted.guarantees),
        level_guarantees=tuple(asdict(guarantee) for guarantee in fitted.level_guarantees),
        confidence=fit_settings.guarantee.confidence,
        guarantee_settings=asdict(fit_settings.guarantee),
        probability_figures=defined(
            figures.probability_figures(labels, probabilities, unseen, fit_settings, classes)
        ),
        triage_figures=defined(figures.triage_figures(labels, lesion_ids, unseen, fit_settings, classes)),
        support=figures.support(validation)
        | defined(figures.decision_figures(labels, lesion_ids, unseen, probabilities, classes)),
        stopping=stopping,
    )
    return calibration, fitted, {"ensemble": ensemble.artifact, "predictions": validation.artifact}


def _stopping(
    ensemble: Ensemble, validation: Predictions, fit_settings: FitSettings, protects: Protects
) -> tuple[dict[str, Any], np.ndarray]:
    """The rule of adaptive TTA with what it costs, and the probabilities that it leaves to decide on."""
    if tta_mode(ensemble.views) not in _ADAPTIVE:
        raise UsageError(
            "--adaptive needs an ensemble over at least 8 different views, not over "
            f"{tta_mode(ensemble.views)}",
            f"Run `skinlesion ensemble --tta` with one of {', '.join(_ADAPTIVE)} first.",
        )
    if len(ensemble.group_weights) != validation.member_groups.shape[1]:
        raise ArtifactError(
            "the merged predictions do not hold what each network said",
            "Run `skinlesion ensemble` again.",
        )
    stopping_fit, probabilities = fit_adaptive(
        validation.labels,
        validation.member_groups,
        ensemble.group_weights,
        validation.lesion_ids,
        fit_settings,
        protects,
        validation.classes,
    )
    return asdict(stopping_fit) | {
        "stopping_rule": stopping_fit.stopping.to_json(),
        "confidence": CONFIDENCE,
    }, probabilities


def tta_mode(views: Sequence[str]) -> str:
    """The name of the TTA mode with these views; `custom` where none has them."""
    return next((name for name, known in tta.MODES.items() if known == tuple(views)), "custom")
