"""Calibrate the ensemble: probabilities, thresholds and triage, with what each is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, InstanceOf

from skinlesion_cli.artifacts import output_checks
from skinlesion_cli.artifacts.calibration import Calibration
from skinlesion_cli.artifacts.ensemble import Ensemble
from skinlesion_cli.artifacts.evaluation import defined
from skinlesion_cli.artifacts.files import exclusive
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.settings import StageSettings
from skinlesion_cli.decisions.adaptive.fit import CONFIDENCE, fit_adaptive
from skinlesion_cli.decisions.adaptive.stopping import Protects
from skinlesion_cli.decisions.fit import FittedRule, cross_fit, fit_rule
from skinlesion_cli.decisions.policies.base import Guarantee
from skinlesion_cli.decisions.policies.registry import POLICIES
from skinlesion_cli.decisions.settings import FitSettings
from skinlesion_cli.errors import ArtifactError, UsageError
from skinlesion_cli.inference import tta
from skinlesion_cli.progress import Reporter
from skinlesion_cli.stages.calibrate import figures
from skinlesion_cli.stages.result import StageResult, Table

# Modes of views that all differ, which a mean may stop among early.
_ADAPTIVE = ("d4", "zoom")


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
    """Fit on the merged validation predictions and write `calibration/`."""
    workspace, fit_settings = Workspace(settings.workspace), settings.fit
    if settings.output is not None:
        output_checks.check_file(
            settings.output, output_checks.is_artifact("calibration"), "a calibration", settings.inputs
        )
    ensemble = Ensemble.load(workspace.ensemble)
    validation = Predictions.load(workspace.ensemble_predictions("val"), hint=Ensemble.HINT)
    assert ensemble.artifact is not None
    assert validation.artifact is not None
    validation.artifact.require_input("ensemble", ensemble.artifact)
    labels, lesion_ids = validation.labels, validation.lesion_ids
    stopping, probabilities = None, validation.probabilities
    if settings.adaptive is not None:
        stopping, probabilities = _stopping(ensemble, validation, fit_settings, settings.adaptive)
    fitted = fit_rule(labels, probabilities, lesion_ids, fit_settings)
    unseen = cross_fit(labels, probabilities, lesion_ids, fit_settings)
    calibration = Calibration(
        rule=fitted.rule,
        policy=fit_settings.policy,
        tta_mode=tta_mode(ensemble.views) if stopping is None else tta.ADAPTIVE,
        views=ensemble.views,
        targets=tuple(asdict(target) for target in fit_settings.targets)
        if POLICIES[fit_settings.policy].has_targets
        else (),
        guarantees=tuple(asdict(guarantee) for guarantee in fitted.guarantees),
        confidence=fit_settings.guarantee.confidence if fitted.guarantees else None,
        guarantee_settings=asdict(fit_settings.guarantee) if fitted.guarantees else {},
        probability_figures=figures.probability_figures(labels, probabilities, unseen, fit_settings),
        triage_figures=defined(figures.triage_figures(labels, lesion_ids, unseen, fitted, fit_settings)),
        support=figures.support(validation) | figures.decision_figures(labels, unseen, probabilities),
        stopping=stopping,
    )
    path = settings.output or workspace.calibration
    with exclusive(path.parent, "calibrate"):
        calibration.save(path, inputs={"ensemble": ensemble.artifact, "predictions": validation.artifact})
    return _result(calibration, fitted, path)


def _stopping(
    ensemble: Ensemble, validation: Predictions, fit_settings: FitSettings, protects: Protects
) -> tuple[dict[str, Any], np.ndarray]:
    """The rule of adaptive TTA with what it costs, and the probabilities that it leaves to decide on."""
    if tta_mode(ensemble.views) not in _ADAPTIVE:
        raise UsageError(
            f"--adaptive needs an ensemble over 8 views, not over {tta_mode(ensemble.views)}",
            f"Run `skinlesion ensemble --tta` with {' or '.join(_ADAPTIVE)} first.",
        )
    if len(ensemble.group_weights) != validation.member_groups.shape[1]:
        raise ArtifactError(
            "the merged predictions do not hold what each network said",
            "Run `skinlesion ensemble` again.",
        )
    found, probabilities = fit_adaptive(
        validation.labels,
        validation.member_groups,
        ensemble.group_weights,
        validation.lesion_ids,
        fit_settings,
        protects,
    )
    return asdict(found) | {
        "stopping_rule": found.stopping.to_json(),
        "confidence": CONFIDENCE,
    }, probabilities


def tta_mode(views: Sequence[str]) -> str:
    """The name of the TTA mode with these views; `custom` where none has them."""
    return next((name for name, known in tta.MODES.items() if known == tuple(views)), "custom")


def describe_guarantee(guarantee: Guarantee) -> str:
    """What is guaranteed of one class, and if it is less than the target, why and what would carry it."""
    if guarantee.sensitivity is None:
        kept = "nothing"
    else:
        kept = f"sensitivity at least {guarantee.sensitivity:.3f}"
        if guarantee.specificity is not None:
            kept += f", specificity at least {guarantee.specificity:.3f}"
        kept += (
            f" (threshold {guarantee.threshold:.4f}; {guarantee.missed} of {guarantee.lesions} "
            "lesions missed)"
        )
    if guarantee.granted:
        return f"  {guarantee.class_name}: {kept}"
    wanted = f"sensitivity {guarantee.target_sensitivity:.2f}"
    if guarantee.target_specificity is not None:
        wanted += f", specificity {guarantee.target_specificity:.2f}"
    more = (
        f"more {guarantee.class_name} lesions alone would not carry it: the networks have to get better"
        if guarantee.more_lesions is None
        else f"about {guarantee.more_lesions:,} more {guarantee.class_name} lesions would carry the target"
    )
    return f"  {guarantee.class_name}: {kept}, NOT the target ({wanted}): {guarantee.reason}; {more}"


def _result(calibration: Calibration, fitted: FittedRule, path: Path) -> StageResult:
    refused = [guarantee for guarantee in fitted.guarantees if not guarantee.granted]
    support = calibration.support
    headline = [
        f"policy {calibration.policy} on {support['images']:,} validation images of "
        f"{support['lesions']:,} lesions"
    ]
    if fitted.guarantees:
        headline.append(f"guaranteed together, with confidence {calibration.confidence:.1%}:")
    headline += [describe_guarantee(guarantee) for guarantee in fitted.guarantees]
    warnings = [f"{guarantee.class_name}: its target is not guaranteed, see above" for guarantee in refused]
    warnings += [
        f"{name}: the published search found no threshold that meets the target ({rule})"
        for name, rule in fitted.search.items()
        if rule != "target"
    ]
    point = fitted.operating_point
    if not point.granted:
        warnings.append(
            f"malignancy: sensitivity {point.target_sensitivity:.2f} is not guaranteed on "
            f"{point.lesions} lesions; "
            "everything that is not certain to be benign is referred"
        )
    if calibration.stopping is not None:
        stop = calibration.stopping
        headline.append(
            f"adaptive: {stop['mean_steps']:.2f} of {stop['n_steps']} steps (a network at a view) on "
            "average; "
            f"{stop['changed_images']} of "
            f"{stop['images']:,} images get another {stop['stopping_rule']['protects']} than on all "
            "steps (at most "
            f"{stop['upper_bound']:.2%} of lesions, confidence {stop['confidence']:.0%}), "
            f"{stop['triage_changed_share']:.1%} another triage level"
        )
    thresholds = [[name, f"{theta:.4f}"] for name, theta in calibration.rule.thresholds.items()]
    before, after = (
        calibration.probability_figures["before"],
        calibration.probability_figures["after_cross_fitted"],
    )
    levels = calibration.triage_figures["levels"]
    return StageResult(
        command="calibrate",
        headline=headline,
        figures={
            "policy": calibration.policy,
            "tta_mode": calibration.tta_mode,
            "views": list(calibration.views),
            "rule": asdict(calibration.rule),
            "confidence": calibration.confidence,
            "guarantees": list(calibration.guarantees),
            "probability_calibration": calibration.probability_figures,
            "triage": calibration.triage_figures,
            "support": support,
            "stopping": calibration.stopping,
        },
        tables=[
            Table("Thresholds, the winner first", ["class", "threshold"], thresholds),
            Table(
                f"Probabilities ({calibration.probability_figures['method']}, cross-fitted)",
                ["", "before", "after"],
                [[key, f"{before[key]:.4f}", f"{after[key]:.4f}"] for key in ("ece", "brier", "log_loss")],
            ),
            Table(
                "Triage on validation, cross-fitted",
                ["level", "of all images", "of malignant", "of benign"],
                [
                    [
                        level,
                        *(
                            "undefined" if share is None else f"{share:.3f}"
                            for share in (
                                rates["share_of_images"],
                                rates["share_of_malignant_images"],
                                rates["share_of_benign_images"],
                            )
                        ),
                    ]
                    for level, rates in levels.items()
                ],
            ),
        ],
        artifacts=[str(path)],
        warnings=warnings,
        next_command="skinlesion predict ./images --cam",
    )
