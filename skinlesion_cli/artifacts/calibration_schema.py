"""Schema of a calibration's body."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from skinlesion_cli.artifacts.base import Body
from skinlesion_cli.artifacts.schema import (
    MOST_MEMBERS,
    MOST_VIEWS,
    ClassName,
    ClassNames,
    Count,
    Figures,
    Share,
    Text,
    ViewName,
    ViewNames,
)
from skinlesion_cli.taxonomy import N_CLASSES

_OpenShare = Annotated[float, Field(gt=0.0, lt=1.0)]
_PerClass = Annotated[tuple[float, ...], Field(max_length=N_CLASSES)]
_WEIGHT_TOLERANCE = 1e-6


class ProbabilityCalibrationBody(Body):
    """See `decisions.calibration.ProbabilityCalibration`; `weights` and `biases` (7 each)
    only for `vector`.
    """

    method: Literal["temperature", "vector", "none"]
    temperature: Annotated[float, Field(ge=1e-3, le=1e3)]
    weights: _PerClass
    biases: _PerClass

    @model_validator(mode="after")
    def _vector_is_complete(self) -> Self:
        if self.method == "vector" and {len(self.weights), len(self.biases)} != {N_CLASSES}:
            raise ValueError(f"vector scaling needs {N_CLASSES} weights and {N_CLASSES} biases")
        if any(abs(value) > 1e3 for value in (*self.weights, *self.biases)):
            raise ValueError("weights and biases must be between -1000 and 1000")
        return self


class RuleBody(Body):
    """See `decisions.triage.DecisionRule`."""

    probability_calibration: ProbabilityCalibrationBody
    thresholds: dict[ClassName, Share]
    priority: ClassNames
    malignant_threshold: Share | None
    conformal_minimum: Annotated[tuple[Share, ...], Field(max_length=N_CLASSES)]

    @model_validator(mode="after")
    def _one_minimum_per_class(self) -> Self:
        if len(self.conformal_minimum) not in (0, N_CLASSES):
            raise ValueError(f"conformal_minimum needs no value or {N_CLASSES}")
        return self


class StoppingRuleBody(Body):
    """See `decisions.adaptive.stopping.StoppingRule`."""

    rule: RuleBody
    margin_factor: Annotated[float, Field(ge=0.0, le=1e12)]
    n_views: Annotated[int, Field(ge=1, le=MOST_VIEWS)]
    protects: Literal["decision", "triage"] = "decision"
    weights: Annotated[tuple[Share, ...], Field(min_length=1, max_length=MOST_MEMBERS)] = (1.0,)

    @model_validator(mode="after")
    def _weights_sum_to_one(self) -> Self:
        if abs(sum(self.weights) - 1.0) > _WEIGHT_TOLERANCE:
            raise ValueError(f"the weights sum to {sum(self.weights)}, not to 1")
        return self


class StoppingBody(Body):
    """The stopping rule of adaptive test-time augmentation, with what was measured of it."""

    stopping_rule: StoppingRuleBody
    images: Count = 0
    lesions: Count = 0
    changed_images: Count = 0
    changed_lesions: Count = 0
    upper_bound: Share | None = None
    cross_fitted_share: Share | None = None
    triage_changed_share: Share | None = None
    decisions_changed_in_all: Share | None = None
    confidence: _OpenShare | None = None
    n_steps: Annotated[int, Field(ge=0, le=MOST_MEMBERS * MOST_VIEWS)] = 0
    mean_steps: Annotated[float, Field(ge=0.0, le=MOST_MEMBERS * MOST_VIEWS)] | None = None
    step_shares: Annotated[tuple[Share, ...], Field(max_length=MOST_MEMBERS * MOST_VIEWS)] = ()

    @model_validator(mode="after")
    def _shares_are_shares(self) -> Self:
        if self.step_shares and sum(self.step_shares) <= 0.0:
            raise ValueError("step_shares sum to 0")
        return self


class TargetBody(Body):
    """See `decisions.thresholds.Target`."""

    class_name: ClassName
    sensitivity: _OpenShare
    specificity: _OpenShare | None = None


class GuaranteeBody(Body):
    """What holds for one class on new images; None where nothing can be guaranteed."""

    class_name: ClassName
    granted: bool
    sensitivity: Annotated[float, Field(ge=0.0, lt=1.0)] | None
    specificity: _OpenShare | None
    target_sensitivity: _OpenShare | None = None
    target_specificity: _OpenShare | None = None
    confidence: _OpenShare
    threshold: Share | None = None
    lesions: Count = 0
    missed: Count = 0
    more_lesions: Count | None = None
    reason: Text = ""


class GuaranteeSettingsBody(Body):
    """See `decisions.settings.GuaranteeSettings`."""

    confidence: Annotated[float, Field(ge=0.5, lt=1.0)] = 0.95
    horizon: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    max_bacc_loss: Share | None = None


class SharpnessBody(Body):
    """See `decisions.probability_fit.sharpness`; None where it is undefined."""

    ece: Share | None = None
    brier: Annotated[float, Field(ge=0.0, le=2.0)] | None = None
    log_loss: Annotated[float, Field(ge=0.0, le=1e6)] | None = None


class ProbabilityFiguresBody(Body):
    """Before and after the calibration of probabilities, cross-fitted."""

    method: Text = ""
    before: SharpnessBody | None = None
    after_cross_fitted: SharpnessBody | None = None


class SupportBody(Body):
    """On how many images and lesions a calibration rests, and what its decisions are worth on them."""

    images: Count = 0
    lesions: Count = 0
    lesions_by_class: dict[ClassName, Count] = Field(default_factory=dict)
    argmax_bacc: Share | None = None
    cross_fitted_bacc: Share | None = None


class CalibrationBody(Body):
    """See `artifacts.calibration.Calibration`."""

    rule: RuleBody
    policy: Text
    tta_mode: ViewName
    views: ViewNames
    targets: Annotated[tuple[TargetBody, ...], Field(max_length=N_CLASSES)]
    guarantees: Annotated[tuple[GuaranteeBody, ...], Field(max_length=N_CLASSES)]
    confidence: _OpenShare | None
    guarantee_settings: GuaranteeSettingsBody | None = None
    probability_figures: ProbabilityFiguresBody
    triage_figures: dict[Text, Figures]
    support: SupportBody
    stopping: StoppingBody | None

    @model_validator(mode="after")
    def _views_fit_the_stopping_rule(self) -> Self:
        if self.tta_mode == "adaptive" and self.stopping is None:
            raise ValueError("tta_mode is adaptive, but there is no stopping rule")
        if self.stopping is not None and self.stopping.stopping_rule.n_views != len(self.views):
            raise ValueError(
                f"the stopping rule is for {self.stopping.stopping_rule.n_views} views, "
                f"the calibration for {len(self.views)}"
            )
        return self
