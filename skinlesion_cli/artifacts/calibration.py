"""A calibration: how probabilities become decisions, and what is guaranteed of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skinlesion_cli.artifacts.envelope import (
    Artifact,
    malformed_as_artifact_error,
    read_artifact,
    write_artifact,
)
from skinlesion_cli.decisions.adaptive.stopping import StoppingRule, stopped_means
from skinlesion_cli.decisions.triage import DecisionRule, Outcome, apply_rule
from skinlesion_cli.errors import ArtifactError

if TYPE_CHECKING:
    # It loads pandas, and completing an option must not.
    from skinlesion_cli.artifacts.predictions import Predictions

KIND = "calibration"
SCHEMA_VERSION = 1
HINT = "Run `skinlesion calibrate` first."


@dataclass(frozen=True)
class Calibration:
    """`rule` is all that prediction needs; the rest says where it came from and what it is worth.

    Attributes
    ----------
    policy : `published`, `guaranteed` or `cost`.
    tta_mode, views : the views that the probabilities must be the mean of (with `adaptive`, those that looks
        are taken from); others were not calibrated.
    targets : one mapping a target: class, sensitivity, specificity.
    guarantees : one mapping a target: what holds on new images, at which confidence, on which support; where it
        was refused, what would be possible and how many more positive lesions it would take.
    guarantee_settings : `decisions.settings.GuaranteeSettings`, for fitting them once more; empty where nothing
        is guaranteed, and in the calibrations of older workspaces.
    probability_figures : ECE, Brier score and log loss before and after, cross-fitted.
    triage_figures : measured rates of refer, review and routine, and the operating point's guarantee.
    stopping : rule of adaptive TTA, where one was fitted.
    """

    rule: DecisionRule
    policy: str
    tta_mode: str
    views: tuple[str, ...]
    targets: tuple[Mapping[str, Any], ...] = ()
    guarantees: tuple[Mapping[str, Any], ...] = ()
    confidence: float | None = None
    guarantee_settings: Mapping[str, Any] = field(default_factory=dict)
    probability_figures: Mapping[str, Any] = field(default_factory=dict)
    triage_figures: Mapping[str, Any] = field(default_factory=dict)
    support: Mapping[str, Any] = field(default_factory=dict)
    stopping: Mapping[str, Any] | None = None
    artifact: Artifact | None = field(default=None, compare=False)

    def decide(self, ensemble_probabilities: np.ndarray, flagged: np.ndarray | None = None) -> Outcome:
        """Decide on the mean over `views`, shape (n_images, 7); see `decisions.triage.apply_rule`."""
        return apply_rule(self.rule, ensemble_probabilities, flagged)

    @property
    def stopping_rule(self) -> StoppingRule | None:
        """The rule of adaptive TTA, where one was fitted."""
        return None if self.stopping is None else StoppingRule.from_json(self.stopping["stopping_rule"])

    def averaged(self, predictions: Predictions) -> np.ndarray:
        """What prediction would decide on: the mean over the looks that it would take.

        Returns
        -------
        float32 (n_images, 7).

        Raises
        ------
        ArtifactError : the stopping rule was fitted on another number of voices.
        """
        stopping = self.stopping_rule
        if stopping is None:
            return predictions.probabilities
        # With a single weight the ensemble speaks as one.
        voices = predictions.view_probabilities[:, None] if len(stopping.weights) == 1 else predictions.voices
        if voices.shape[1] != len(stopping.weights):
            raise ArtifactError(
                f"the stopping rule is for {len(stopping.weights)} voices, but these predictions hold "
                f"{voices.shape[1]}",
                "Run `skinlesion ensemble` and `skinlesion calibrate` again.",
            )
        return stopped_means(stopping, voices)[0]

    def require_views(self, views: tuple[str, ...]) -> None:
        """Refuse probabilities that are the mean of other TTA views than those calibrated on.

        Raises
        ------
        ArtifactError : naming both.
        """
        if tuple(views) != self.views:
            raise ArtifactError(
                f"the calibration was fitted on the views {', '.join(self.views)}, "
                f"but these predictions use {', '.join(views)}",
                "Predict with the same --tta as the validation predictions, or calibrate again.",
            )


def write(path: Path, calibration: Calibration, *, inputs: Mapping[str, Artifact | str]) -> Artifact:
    """Write a calibration; `inputs` names the predictions and the ensemble behind it."""
    body = {
        "rule": asdict(calibration.rule),
        "policy": calibration.policy,
        "tta_mode": calibration.tta_mode,
        "views": list(calibration.views),
        "targets": [dict(target) for target in calibration.targets],
        "guarantees": [dict(guarantee) for guarantee in calibration.guarantees],
        "confidence": calibration.confidence,
        "guarantee": dict(calibration.guarantee_settings),
        "probability_figures": dict(calibration.probability_figures),
        "triage_figures": dict(calibration.triage_figures),
        "support": dict(calibration.support),
        "stopping": dict(calibration.stopping) if calibration.stopping is not None else None,
    }
    return write_artifact(path, kind=KIND, schema_version=SCHEMA_VERSION, body=body, inputs=inputs)


@malformed_as_artifact_error
def read(path: Path) -> Calibration:
    """Read and verify a calibration."""
    artifact = read_artifact(path, kind=KIND, schema_version=SCHEMA_VERSION, hint=HINT)
    body = artifact.body
    return Calibration(
        rule=DecisionRule.from_json(body["rule"]),
        policy=body["policy"],
        tta_mode=body["tta_mode"],
        views=tuple(body["views"]),
        targets=tuple(body["targets"]),
        # The key of calibrations that were written before it was renamed.
        guarantees=tuple(body["guarantees"] if "guarantees" in body else body["promises"]),
        confidence=body["confidence"],
        guarantee_settings=body.get("guarantee", {}),
        probability_figures=body["probability_figures"],
        triage_figures=body["triage_figures"],
        support=body["support"],
        stopping=body["stopping"],
        artifact=artifact,
    )
