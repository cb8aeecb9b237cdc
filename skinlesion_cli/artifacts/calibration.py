"""A calibration: how probabilities become decisions, and what is guaranteed of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from skinlesion_cli.artifacts.base import Content, StoredArtifact, parsed
from skinlesion_cli.artifacts.calibration_schema import CalibrationBody
from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.legacy import with_present_names
from skinlesion_cli.decisions.adaptive.stopping import StoppingRule, stopped_means
from skinlesion_cli.decisions.triage import DecisionRule, Outcome, apply_rule
from skinlesion_cli.errors import ArtifactError
from skinlesion_cli.taxonomy.class_list import ClassList

if TYPE_CHECKING:
    # It loads pandas, and completing an option must not.
    from skinlesion_cli.artifacts.predictions import Predictions


@dataclass(frozen=True)
class Calibration(StoredArtifact):
    """`rule` is all that prediction needs; the rest records how it was fitted and what was measured.

    Attributes
    ----------
    policy : name of the threshold policy.
    tta_mode, views : the views that the probabilities must be the mean of (with `adaptive`, those that
        forward passes are taken from); others were not calibrated.
    targets : one mapping per target: class, sensitivity, specificity.
    guarantees : one mapping per alarm: what holds on new images, at which confidence, on which support; where
        it was refused, what would be possible and how many more positive lesions it would take.
    level_guarantees : the same for `refer` and `routine`; empty in calibrations of older workspaces.
    guarantee_settings : `decisions.settings.GuaranteeSettings`, for fitting them again; empty where
        nothing is guaranteed, and in the calibrations of older workspaces.
    probability_figures : calibration error, Brier score and log loss before and after, cross-fitted.
    triage_figures : measured rates of refer, review and routine, and of each alarm, cross-fitted.
    stopping : rule of adaptive TTA with what was measured of it, where one was fitted.
    """

    KIND: ClassVar[str] = "calibration"
    # 2: class offsets, alarms and levels of triage. A reader of 1 would pass over them in silence.
    SCHEMA_VERSION: ClassVar[int] = 2
    HINT: ClassVar[str] = "Run `skinlesion calibrate` first."

    rule: DecisionRule
    policy: str
    tta_mode: str
    views: tuple[str, ...]
    targets: tuple[Mapping[str, Any], ...] = ()
    guarantees: tuple[Mapping[str, Any], ...] = ()
    level_guarantees: tuple[Mapping[str, Any], ...] = ()
    confidence: float | None = None
    guarantee_settings: Mapping[str, Any] = field(default_factory=dict)
    probability_figures: Mapping[str, Any] = field(default_factory=dict)
    triage_figures: Mapping[str, Any] = field(default_factory=dict)
    support: Mapping[str, Any] = field(default_factory=dict)
    stopping: Mapping[str, Any] | None = None
    artifact: Artifact | None = field(default=None, compare=False)

    @property
    def classes(self) -> ClassList:
        """What it decides between."""
        return self.rule.classes

    def decide(
        self,
        ensemble_probabilities: np.ndarray,
        flagged: np.ndarray | None = None,
        failed_checks: Sequence[Sequence[str]] | None = None,
    ) -> Outcome:
        """Decide on the mean over `views`, shape (n_images, n_classes); see `decisions.triage.apply_rule`."""
        return apply_rule(self.rule, ensemble_probabilities, flagged, failed_checks)

    @property
    def stopping_rule(self) -> StoppingRule | None:
        """The rule of adaptive TTA, where one was fitted."""
        if self.stopping is None:
            return None
        return StoppingRule.from_json(
            with_present_names(self.KIND, self.stopping["stopping_rule"]), self.classes
        )

    def averaged(self, predictions: Predictions) -> np.ndarray:
        """What prediction would decide on: the mean over the forward passes that it would take.

        Returns
        -------
        float32 (n_images, n_classes).

        Raises
        ------
        ArtifactError : the stopping rule was fitted on another number of member groups.
        """
        stopping = self.stopping_rule
        if stopping is None:
            return predictions.probabilities
        # With a single weight the whole ensemble is one group.
        groups = (
            predictions.view_probabilities[:, None]
            if len(stopping.weights) == 1
            else predictions.member_groups
        )
        if groups.shape[1] != len(stopping.weights):
            raise ArtifactError(
                f"the stopping rule is for {len(stopping.weights)} member groups, but these predictions hold "
                f"{groups.shape[1]}",
                "Run `skinlesion ensemble` and `skinlesion calibrate` again.",
            )
        return stopped_means(stopping, groups)[0]

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

    @classmethod
    def _from_artifact(cls, artifact: Artifact) -> Self:
        body = parsed(CalibrationBody, artifact)
        settings = body.guarantee_settings
        return cls(
            rule=DecisionRule.from_json(body.rule.model_dump(), artifact.classes),
            policy=body.policy,
            tta_mode=body.tta_mode,
            views=body.views,
            targets=tuple(target.model_dump() for target in body.targets),
            guarantees=tuple(guarantee.model_dump(exclude_unset=True) for guarantee in body.guarantees),
            level_guarantees=tuple(level.model_dump() for level in body.level_guarantees),
            confidence=body.confidence,
            guarantee_settings={} if settings is None else settings.model_dump(exclude_unset=True),
            probability_figures=body.probability_figures.model_dump(exclude_unset=True),
            triage_figures=body.triage_figures,
            support=body.support.model_dump(exclude_unset=True),
            stopping=None if body.stopping is None else body.stopping.model_dump(),
            artifact=artifact,
        )

    def _content(self) -> Content:
        return Content(
            {
                "rule": self.rule.to_json(),
                "policy": self.policy,
                "tta_mode": self.tta_mode,
                "views": list(self.views),
                "targets": [dict(target) for target in self.targets],
                "guarantees": [dict(guarantee) for guarantee in self.guarantees],
                "level_guarantees": [dict(guarantee) for guarantee in self.level_guarantees],
                "confidence": self.confidence,
                "guarantee_settings": dict(self.guarantee_settings) or None,
                "probability_figures": dict(self.probability_figures),
                "triage_figures": dict(self.triage_figures),
                "support": dict(self.support),
                "stopping": None if self.stopping is None else with_present_names(self.KIND, self.stopping),
            },
            classes=self.classes,
        )
