"""Schema of a calibration's body."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from skinlesion_cli.artifacts.base import Body
from skinlesion_cli.artifacts.schema import (
    MOST_CLASSES,
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
    classes_of,
)

_OpenShare = Annotated[float, Field(gt=0.0, lt=1.0)]
_Parameter = Annotated[float, Field(ge=-1e3, le=1e3)]
_Parameters = Annotated[tuple[_Parameter, ...], Field(max_length=MOST_CLASSES)]
_Triple = Annotated[tuple[_Parameter, ...], Field(min_length=3, max_length=3)]
_Curve = Annotated[tuple[Share, ...], Field(min_length=1, max_length=10_000)]
_AlarmName = ClassName | Literal["malignant"]
_WEIGHT_TOLERANCE = 1e-6


class ProbabilityCalibrationBody(Body):
    """See `decisions.calibration.ProbabilityCalibration`: each method has the parameters that it needs."""

    method: Literal["vector", "temperature", "dirichlet", "beta", "isotonic", "none"]
    temperature: Annotated[float, Field(ge=1e-3, le=1e3)]
    weights: _Parameters
    biases: _Parameters
    matrix: Annotated[tuple[_Parameters, ...], Field(max_length=MOST_CLASSES)] = ()
    coefficients: Annotated[tuple[_Triple, ...], Field(max_length=MOST_CLASSES)] = ()
    curves: Annotated[tuple[tuple[_Curve, _Curve], ...], Field(max_length=MOST_CLASSES)] = ()

    @model_validator(mode="after")
    def _is_complete(self, info: ValidationInfo) -> Self:
        needed: dict[str, tuple[tuple[object, ...], ...]] = {
            "vector": (self.weights, self.biases),
            "dirichlet": (self.biases, self.matrix, *self.matrix),
            "beta": (self.coefficients,),
            "isotonic": (self.curves,),
        }
        classes = classes_of(info)
        if classes and any(len(part) != classes.n_classes for part in needed.get(self.method, ())):
            raise ValueError(
                f"calibration by `{self.method}` needs {classes.n_classes} parameters of each kind"
            )
        if any(len(x) != len(y) or list(x) != sorted(x) for x, y in self.curves):
            raise ValueError("a curve needs as many values as probabilities, and these in ascending order")
        return self


class RiskLevelsBody(Body):
    """See `decisions.triage.RiskLevels`."""

    refer_above: Share
    routine_at_most: Annotated[float, Field(ge=-1.0, le=1.0)]


class RuleBody(Body):
    """See `decisions.triage.DecisionRule`."""

    probability_calibration: ProbabilityCalibrationBody
    class_offsets: _Parameters = ()
    thresholds: dict[ClassName, Share]
    alarms: dict[_AlarmName, Share] = Field(default_factory=dict)
    levels: RiskLevelsBody | None = None
    priority: ClassNames
    malignant_threshold: Share | None
    conformal_minimum: Annotated[tuple[Share, ...], Field(max_length=MOST_CLASSES)]

    @model_validator(mode="after")
    def _one_minimum_per_class(self, info: ValidationInfo) -> Self:
        classes = classes_of(info)
        for name in ("conformal_minimum", "class_offsets"):
            if classes and len(getattr(self, name)) not in (0, classes.n_classes):
                raise ValueError(f"{name} needs no value or {classes.n_classes}")
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
    """See `decisions.settings.Target`."""

    class_name: ClassName
    sensitivity: _OpenShare
    specificity: _OpenShare | None = None


class GuaranteeBody(Body):
    """See `decisions.policies.base.Guarantee`; None where nothing can be guaranteed."""

    class_name: _AlarmName
    granted: bool
    sensitivity: Annotated[float, Field(ge=0.0, lt=1.0)] | None
    next_sensitivity: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    next_lesions: Count = 0
    photograph_sensitivity: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    specificity: _OpenShare | None
    target_sensitivity: _OpenShare | None = None
    target_specificity: _OpenShare | None = None
    confidence: _OpenShare
    threshold: Share | None = None
    lesions: Count = 0
    missed: Count = 0
    more_lesions: Count | None = None
    reason: Text = ""


class LevelGuaranteeBody(Body):
    """See `decisions.triage_fit.LevelGuarantee`."""

    level: Literal["refer", "routine"]
    figure: Literal["ppv", "risk"]
    limit: Annotated[float, Field(ge=-1.0, le=1.0)]
    granted: bool
    target: _OpenShare | None
    guaranteed: Share | None
    measured: Share | None = None
    confidence: _OpenShare
    lesions: Count = 0


class GuaranteeSettingsBody(Body):
    """See `decisions.settings.GuaranteeSettings`; `max_bacc_loss` only in older calibrations."""

    confidence: Annotated[float, Field(ge=0.5, lt=1.0)] = 0.95
    horizon: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    max_bacc_loss: Share | None = None


class SharpnessBody(Body):
    """See `decisions.evaluation.calibration_figures`, of which `sharpness` is a part; None: undefined."""

    ece: Share | None = None
    brier: Annotated[float, Field(ge=0.0, le=2.0)] | None = None
    log_loss: Annotated[float, Field(ge=0.0, le=1e6)] | None = None
    class_error: Share | None = None
    by_class: dict[_AlarmName, Figures] = Field(default_factory=dict)
    malignant_reliability: list[Figures] = Field(default_factory=list)


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
    bacc_gain: Figures | None = None


class CalibrationBody(Body):
    """See `artifacts.calibration.Calibration`."""

    rule: RuleBody
    policy: Text
    tta_mode: ViewName
    views: ViewNames
    targets: Annotated[tuple[TargetBody, ...], Field(max_length=MOST_CLASSES)]
    guarantees: Annotated[tuple[GuaranteeBody, ...], Field(max_length=MOST_CLASSES + 1)]
    level_guarantees: Annotated[tuple[LevelGuaranteeBody, ...], Field(max_length=2)] = ()
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
