"""From classes to what a clinician acts on: refer, review, routine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from skinlesion_cli.decisions import reasons as words
from skinlesion_cli.decisions.calibration import ProbabilityCalibration
from skinlesion_cli.decisions.former_triage import former_reasons, former_triage_levels
from skinlesion_cli.decisions.levels import REFER, REVIEW, ROUTINE
from skinlesion_cli.decisions.statistics.metrics import checked
from skinlesion_cli.decisions.thresholds import Decisions, decide
from skinlesion_cli.errors import DataError
from skinlesion_cli.taxonomy import MALIGNANT, ClassList


def malignant_probability(probabilities: np.ndarray, classes: ClassList) -> np.ndarray:
    """Probability of a malignant class: float32 of shape (n_images,), at most 1; 0 where the list has
    none.
    """
    total = checked(probabilities)[:, np.flatnonzero(classes.is_malignant)].sum(axis=1)
    result: np.ndarray = np.minimum(total, 1.0).astype(np.float32)
    return result


def conformal_set(probabilities: np.ndarray, minimum_probability: np.ndarray) -> np.ndarray:
    """Classes that stay plausible: bool of shape (n_images, n_classes), class k in where p_k >= its minimum.

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
    classes : what the probabilities are of. Without a malignant class among them there is no triage.
    class_offsets : of the decided class (see `thresholds.decide`); empty: the argmax.
    thresholds, priority : override the decided class.
    alarms : probability of a class, or of `malignant`, above which its alarm fires.
    levels : of triage. None in calibrations that were written before alarms existed: these are triaged as
        they were, by `malignant_threshold`, which refers where the malignant probability is higher (see
        `former_triage`).
    conformal_minimum : one probability per class (see `conformal_set`); empty: no sets.
    """

    classes: ClassList
    probability_calibration: ProbabilityCalibration = field(default_factory=ProbabilityCalibration)
    class_offsets: tuple[float, ...] = ()
    thresholds: dict[str, float] = field(default_factory=dict)
    priority: tuple[str, ...] = ()
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

    def to_json(self) -> dict[str, Any]:
        """In JSON types, without the classes: whoever stores a rule stores them beside it."""
        return {
            "probability_calibration": asdict(self.probability_calibration),
            "class_offsets": self.class_offsets,
            "thresholds": dict(self.thresholds),
            "priority": self.priority,
            "alarms": dict(self.alarms),
            "levels": None if self.levels is None else asdict(self.levels),
            "malignant_threshold": self.malignant_threshold,
            "conformal_minimum": self.conformal_minimum,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], classes: ClassList) -> DecisionRule:
        """From its fields in JSON types."""
        levels = stored.get("levels")
        return cls(
            classes=classes,
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

    `probabilities` float32 (n_images, n_classes), calibrated; `malignant_probability` float32 (n_images,);
    `triage` an array of `refer`, `review`, `routine`, and `reasons` why, in words, one per image; both None,
    and no reasons, where no class is malignant;
    `conformal_sets` bool (n_images, n_classes) or None; `alarms` bool (n_images,) by name: which of them
    fire.
    """

    probabilities: np.ndarray
    decisions: Decisions
    malignant_probability: np.ndarray | None
    triage: np.ndarray | None
    conformal_sets: np.ndarray | None
    alarms: Mapping[str, np.ndarray] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()

    def fired_alarms(self, index: int) -> tuple[str, ...]:
        """Names of the alarms that fire for one image."""
        return tuple(name for name, fires in self.alarms.items() if fires[index])


def alarm_scores(calibrated: np.ndarray, malignant: np.ndarray, name: str, classes: ClassList) -> np.ndarray:
    """What an alarm looks at: float64 (n_images,)."""
    scores = malignant if name == MALIGNANT else calibrated[:, classes.index[name]]
    return np.asarray(scores, dtype=np.float64)


def apply_rule(
    rule: DecisionRule,
    ensemble_probabilities: np.ndarray,
    flagged: np.ndarray | None = None,
    failed_checks: Sequence[Sequence[str]] | None = None,
) -> Outcome:
    """Decide on ensemble probabilities.

    Parameters
    ----------
    ensemble_probabilities : shape (n_images, n_classes), before calibration.
    flagged : bool (n_images,), images that failed a check of quality or of what the model knows.
    failed_checks : names of the checks that each image failed, for the reasons.

    Raises
    ------
    DataError : the probabilities are of another number of classes.
    """
    classes = rule.classes
    if np.shape(ensemble_probabilities)[1] != classes.n_classes:
        raise DataError(
            f"the decision rule is for {classes.described}, the probabilities are of "
            f"{np.shape(ensemble_probabilities)[1]} classes"
        )
    calibrated = rule.probability_calibration.apply(ensemble_probabilities)
    decisions = decide(calibrated, rule.thresholds, classes, rule.priority, rule.class_offsets)
    malignant = malignant_probability(calibrated, classes)
    sets = conformal_set(calibrated, np.array(rule.conformal_minimum)) if rule.conformal_minimum else None
    alarms = {
        name: alarm_scores(calibrated, malignant, name, classes) > theta
        for name, theta in rule.alarms.items()
    }
    if not classes.has_malignant:
        return Outcome(calibrated, decisions, None, None, sets, alarms)
    if rule.levels is None:
        levels = former_triage_levels(
            decisions.decided, malignant, rule.malignant_threshold, sets, classes, flagged
        )
        reasons = former_reasons(
            levels,
            decisions.decided,
            malignant,
            rule.malignant_threshold,
            sets,
            classes,
            flagged,
            failed_checks,
        )
        return Outcome(calibrated, decisions, malignant, levels, sets, alarms, reasons)
    raising = raised(
        calibrated, malignant, decisions.decided, rule.alarms, sets, classes, flagged, failed_checks
    )
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
    classes: ClassList,
    flagged: np.ndarray | None = None,
    failed_checks: Sequence[Sequence[str]] | None = None,
) -> list[Raising]:
    """What raises `routine` to `review`: pairs of bool (n_images,) and a function of the reason for an image.

    An alarm that fires; a malignant decided class; a conformal set that holds a malignant class, or no class
    at all; an image that is flagged. Nothing lowers `refer`.
    """
    raising: list[Raising] = []
    for name, theta in alarms.items():
        scores = alarm_scores(calibrated, malignant, name, classes)
        raising.append((np.asarray(scores > theta), _alarm_reason(name, scores, theta, classes)))
    raising.append((classes.is_malignant[decided], lambda index: f"decided {classes.codes[decided[index]]}"))
    if sets is not None:
        holding_malignant_or_nothing = sets[:, classes.is_malignant].any(axis=1) | ~sets.any(axis=1)
        raising.append(
            (
                np.asarray(holding_malignant_or_nothing),
                lambda index: words.plausible_reason(sets[index], classes),
            )
        )
    if flagged is not None:
        said = words.flag_reasons(failed_checks, len(flagged))
        raising.append((np.asarray(flagged, dtype=bool), lambda index: said[index]))
    return raising


def _alarm_reason(name: str, scores: np.ndarray, theta: float, classes: ClassList) -> Callable[[int], str]:
    return lambda index: words.alarm_reason(name, float(scores[index]), theta, classes)


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
            because = [words.risk_reason(risk, ">", limits.refer_above), *because]
        elif level == ROUTINE:
            because = [words.risk_reason(risk, "<=", limits.routine_at_most, digits=3)]
        elif risk > limits.routine_at_most:
            because = [words.risk_reason(risk, ">", max(limits.routine_at_most, 0.0), digits=3), *because]
        reasons.append("; ".join(because))
    return tuple(reasons)
