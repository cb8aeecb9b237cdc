"""From seven classes to what a clinician acts on: refer, review, routine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from skinlesion_cli.decisions import reasons as words
from skinlesion_cli.decisions.calibration import ProbabilityCalibration
from skinlesion_cli.decisions.statistics.metrics import checked
from skinlesion_cli.decisions.thresholds import DEFAULT_PRIORITY, Decisions, decide
from skinlesion_cli.taxonomy import CLASS_INDEX, CLASS_NAMES, MALIGNANT, MALIGNANT_INDEXES, N_CLASSES

REFER: Final = "refer"
REVIEW: Final = "review"
ROUTINE: Final = "routine"
LEVELS: Final = (REFER, REVIEW, ROUTINE)
IS_MALIGNANT: Final = np.isin(np.arange(N_CLASSES), MALIGNANT_INDEXES)


def malignant_probability(probabilities: np.ndarray) -> np.ndarray:
    """Probability of MEL, BCC or AKIEC: float32 of shape (n_images,), at most 1."""
    total = checked(probabilities)[:, list(MALIGNANT_INDEXES)].sum(axis=1)
    result: np.ndarray = np.minimum(total, 1.0).astype(np.float32)
    return result


def conformal_set(probabilities: np.ndarray, minimum_probability: np.ndarray) -> np.ndarray:
    """Classes that stay plausible: bool of shape (n_images, 7), class k in where p_k >= its minimum.

    Split conformal with one quantile per class (Mondrian; Vovk et al., 2005; score 1 - p of Sadinle et al.,
    2019, arXiv:1609.00451). A minimum of 0 keeps a class in every set: too few images of it to leave it out.
    """
    return checked(probabilities) >= np.asarray(minimum_probability, dtype=np.float64)[None, :]


@dataclass(frozen=True)
class RiskLevels:
    """Where triage changes: `refer` above `refer_above` of malignant probability, `routine` at or below
    `routine_at_most` (negative: nothing is routine), `review` in between."""

    refer_above: float
    routine_at_most: float


@dataclass(frozen=True)
class DecisionRule:
    """Everything that turns ensemble probabilities into decisions; what a calibration stores.

    Attributes
    ----------
    class_offsets : of the decided class (see `thresholds.decide`); empty: the argmax.
    thresholds, priority : override the decided class.
    alarms : probability of a class, or of `malignant`, above which its alarm fires.
    levels : of triage. None in calibrations that were written before alarms existed: these are triaged as
        they were, by `malignant_threshold`, which refers where the malignant probability is higher (see
        `former_triage_levels`).
    conformal_minimum : one probability per class (see `conformal_set`); empty: no sets.
    """

    probability_calibration: ProbabilityCalibration = field(default_factory=ProbabilityCalibration)
    class_offsets: tuple[float, ...] = ()
    thresholds: dict[str, float] = field(default_factory=dict)
    priority: tuple[str, ...] = DEFAULT_PRIORITY
    alarms: dict[str, float] = field(default_factory=dict)
    levels: RiskLevels | None = None
    malignant_threshold: float | None = None
    conformal_minimum: tuple[float, ...] = ()

    @property
    def fires_above(self) -> dict[str, float]:
        """Every threshold on the probability of a class, or of `malignant`: alarms, and those that
        override.
        """
        return {**self.alarms, **self.thresholds}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> DecisionRule:
        """From its fields in JSON types."""
        levels = stored.get("levels")
        return cls(
            probability_calibration=ProbabilityCalibration.from_json(stored["probability_calibration"]),
            class_offsets=tuple(float(offset) for offset in stored.get("class_offsets", ())),
            thresholds=dict(stored["thresholds"]),
            priority=tuple(stored["priority"]),
            alarms={name: float(theta) for name, theta in stored.get("alarms", {}).items()},
            levels=None if levels is None else RiskLevels(levels["refer_above"], levels["routine_at_most"]),
            malignant_threshold=stored["malignant_threshold"],
            conformal_minimum=tuple(stored["conformal_minimum"]),
        )


@dataclass(frozen=True)
class Outcome:
    """What is said of each image.

    `probabilities` float32 (n_images, 7), calibrated; `malignant_probability` float32 (n_images,);
    `triage` an array of `refer`, `review`, `routine`, and `reasons` why, in words, one per image;
    `conformal_sets` bool (n_images, 7) or None; `alarms` bool (n_images,) by name: which of them fire.
    """

    probabilities: np.ndarray
    decisions: Decisions
    malignant_probability: np.ndarray
    triage: np.ndarray
    conformal_sets: np.ndarray | None
    alarms: Mapping[str, np.ndarray] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()

    def fired_alarms(self, index: int) -> tuple[str, ...]:
        """Names of the alarms that fire for one image."""
        return tuple(name for name, fires in self.alarms.items() if fires[index])


def alarm_scores(calibrated: np.ndarray, malignant: np.ndarray, name: str) -> np.ndarray:
    """What an alarm looks at: float64 (n_images,)."""
    return np.asarray(malignant if name == MALIGNANT else calibrated[:, CLASS_INDEX[name]], dtype=np.float64)


def apply_rule(
    rule: DecisionRule,
    ensemble_probabilities: np.ndarray,
    flagged: np.ndarray | None = None,
    failed_checks: Sequence[Sequence[str]] | None = None,
) -> Outcome:
    """Decide on ensemble probabilities.

    Parameters
    ----------
    ensemble_probabilities : shape (n_images, 7), before calibration.
    flagged : bool (n_images,), images that failed a check of quality or of what the model knows.
    failed_checks : names of the checks that each image failed, for the reasons.
    """
    calibrated = rule.probability_calibration.apply(ensemble_probabilities)
    decisions = decide(calibrated, rule.thresholds, rule.priority, rule.class_offsets)
    malignant = malignant_probability(calibrated)
    sets = conformal_set(calibrated, np.array(rule.conformal_minimum)) if rule.conformal_minimum else None
    alarms = {name: alarm_scores(calibrated, malignant, name) > theta for name, theta in rule.alarms.items()}
    if rule.levels is None:
        levels = former_triage_levels(decisions.decided, malignant, rule.malignant_threshold, sets, flagged)
        reasons = _former_reasons(
            levels, decisions.decided, malignant, rule.malignant_threshold, sets, flagged, failed_checks
        )
        return Outcome(calibrated, decisions, malignant, levels, sets, alarms, reasons)
    raising = raised(calibrated, malignant, decisions.decided, rule.alarms, sets, flagged, failed_checks)
    levels = triage_levels(malignant, rule.levels, [mask for mask, _ in raising])
    reasons = _reasons(levels, malignant, rule.levels, raising)
    return Outcome(calibrated, decisions, malignant, levels, sets, alarms, reasons)


# Which images something raises, and why it raises an image, by its index.
Raising = tuple[np.ndarray, Callable[[int], str]]


def raised(
    calibrated: np.ndarray,
    malignant: np.ndarray,
    decided: np.ndarray,
    alarms: Mapping[str, float],
    sets: np.ndarray | None,
    flagged: np.ndarray | None = None,
    failed_checks: Sequence[Sequence[str]] | None = None,
) -> list[Raising]:
    """What raises `routine` to `review`: pairs of bool (n_images,) and a function of the reason for an image.

    An alarm that fires; a malignant decided class; a conformal set that holds a malignant class, or no class
    at all; an image that is flagged. Nothing lowers `refer`.
    """
    raising: list[Raising] = []
    for name, theta in alarms.items():
        scores = alarm_scores(calibrated, malignant, name)
        raising.append((np.asarray(scores > theta), _alarm_reason(name, scores, theta)))
    raising.append((IS_MALIGNANT[decided], lambda index: f"decided {CLASS_NAMES[decided[index]]}"))
    if sets is not None:
        holding_malignant_or_nothing = sets[:, IS_MALIGNANT].any(axis=1) | ~sets.any(axis=1)
        raising.append(
            (np.asarray(holding_malignant_or_nothing), lambda index: words.plausible_reason(sets[index]))
        )
    if flagged is not None:
        said = words.flag_reasons(failed_checks, len(flagged))
        raising.append((np.asarray(flagged, dtype=bool), lambda index: said[index]))
    return raising


def _alarm_reason(name: str, scores: np.ndarray, theta: float) -> Callable[[int], str]:
    return lambda index: words.alarm_reason(name, float(scores[index]), theta)


def triage_levels(malignant: np.ndarray, levels: RiskLevels, raising: Sequence[np.ndarray]) -> np.ndarray:
    """`refer`, `review` or `routine`: an array of str of shape (n_images,).

    Parameters
    ----------
    malignant : malignant probability, (n_images,); compared in float64.
    raising : bool (n_images,) each; raise `routine` to `review`.
    """
    risk = np.asarray(malignant, dtype=np.float64)
    routine = risk <= levels.routine_at_most
    for mask in raising:
        routine &= ~mask
    return np.select([risk > levels.refer_above, routine], [REFER, ROUTINE], default=REVIEW)


def _reasons(
    levels: np.ndarray, malignant: np.ndarray, limits: RiskLevels, raising: Sequence[Raising]
) -> tuple[str, ...]:
    """Why each image has its level, in words."""
    reasons = []
    for index, level in enumerate(levels):
        risk = float(malignant[index])
        because = [reason(index) for mask, reason in raising if mask[index]]
        if level == REFER:
            because = [_risk_reason(risk, ">", limits.refer_above), *because]
        elif level == ROUTINE:
            because = [_risk_reason(risk, "<=", limits.routine_at_most, digits=3)]
        elif risk > limits.routine_at_most:
            because = [_risk_reason(risk, ">", max(limits.routine_at_most, 0.0), digits=3), *because]
        reasons.append("; ".join(because))
    return tuple(reasons)


def _risk_reason(risk: float, sign: str, limit: float, digits: int = 2) -> str:
    return f"malignant probability {words.compared(risk, sign, limit, digits)}"


def _former_reasons(
    levels: np.ndarray,
    decided: np.ndarray,
    malignant: np.ndarray,
    malignant_threshold: float | None,
    sets: np.ndarray | None,
    flagged: np.ndarray | None,
    failed_checks: Sequence[Sequence[str]] | None,
) -> tuple[str, ...]:
    """The same for calibrations without `RiskLevels`."""
    said = words.flag_reasons(failed_checks, len(levels))
    reasons = []
    for index, level in enumerate(levels):
        risk, because = float(malignant[index]), []
        over = malignant_threshold is not None and risk > malignant_threshold
        if level == REVIEW:
            because += [said[index]] if flagged is not None and flagged[index] else []
            because += [words.plausible_reason(sets[index])] if sets is not None else []
        elif level == REFER:
            if over and malignant_threshold is not None:
                because.append(_risk_reason(risk, ">", malignant_threshold))
            because += [f"decided {CLASS_NAMES[decided[index]]}"] if IS_MALIGNANT[decided[index]] else []
        else:
            because.append(f"decided {CLASS_NAMES[decided[index]]}")
            if malignant_threshold is not None:
                because.append(_risk_reason(risk, "<=", malignant_threshold))
        reasons.append("; ".join(because))
    return tuple(reasons)


def former_triage_levels(
    decided: np.ndarray,
    malignant: np.ndarray,
    malignant_threshold: float | None,
    sets: np.ndarray | None,
    flagged: np.ndarray | None = None,
) -> np.ndarray:
    """The triage of calibrations without `RiskLevels`: `review` before `refer` before `routine`.

    review : the conformal set holds benign and malignant classes, or none at all, or only malignant ones
        where nothing else refers; or the image is flagged.
    refer : the decided class is malignant, or the malignant probability exceeds its operating point.
    routine : the rest.
    """
    over = np.zeros(len(decided), dtype=bool)
    if malignant_threshold is not None:
        over = np.asarray(malignant, dtype=np.float64) > malignant_threshold
    refer = IS_MALIGNANT[decided] | over
    review = np.zeros(len(decided), bool) if flagged is None else np.asarray(flagged, bool).copy()
    if sets is not None:
        holds_malignant, holds_benign = sets[:, IS_MALIGNANT].any(axis=1), sets[:, ~IS_MALIGNANT].any(axis=1)
        review |= (holds_malignant == holds_benign) | (holds_malignant & ~refer)
    return np.select([review, refer], [REVIEW, REFER], default=ROUTINE)
