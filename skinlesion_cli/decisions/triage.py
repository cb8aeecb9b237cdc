"""From seven classes to what a clinician acts on: refer, review, routine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from skinlesion_cli.decisions.calibration import ProbabilityCalibration
from skinlesion_cli.decisions.statistics.metrics import checked
from skinlesion_cli.decisions.thresholds import DEFAULT_PRIORITY, Decisions, decide
from skinlesion_cli.taxonomy import MALIGNANT_INDEXES, N_CLASSES

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

    Split conformal with one quantile a class (Mondrian; Vovk et al., 2005; score 1 - p of Sadinle et al.,
    2019, arXiv:1609.00451). A minimum of 0 keeps a class in every set: too few images of it to leave it out.
    """
    return checked(probabilities) >= np.asarray(minimum_probability, dtype=np.float64)[None, :]


@dataclass(frozen=True)
class DecisionRule:
    """Everything that turns ensemble probabilities into decisions; what a calibration stores.

    `malignant_threshold` refers where the malignant probability is higher; None: only the decided class
    refers. `conformal_minimum` has one probability a class (see `conformal_set`); empty: no sets.
    """

    probability_calibration: ProbabilityCalibration = field(default_factory=ProbabilityCalibration)
    thresholds: dict[str, float] = field(default_factory=dict)
    priority: tuple[str, ...] = DEFAULT_PRIORITY
    malignant_threshold: float | None = None
    conformal_minimum: tuple[float, ...] = ()

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> DecisionRule:
        """From its fields in JSON types."""
        return cls(
            probability_calibration=ProbabilityCalibration.from_json(stored["probability_calibration"]),
            thresholds=dict(stored["thresholds"]),
            priority=tuple(stored["priority"]),
            malignant_threshold=stored["malignant_threshold"],
            conformal_minimum=tuple(stored["conformal_minimum"]),
        )


@dataclass(frozen=True)
class Outcome:
    """What is said of each image.

    `probabilities` float32 (n_images, 7), calibrated; `malignant_probability` float32 (n_images,);
    `triage` an array of `refer`, `review`, `routine`; `conformal_sets` bool (n_images, 7) or None.
    """

    probabilities: np.ndarray
    decisions: Decisions
    malignant_probability: np.ndarray
    triage: np.ndarray
    conformal_sets: np.ndarray | None


def apply_rule(
    rule: DecisionRule, ensemble_probabilities: np.ndarray, flagged: np.ndarray | None = None
) -> Outcome:
    """Decide on ensemble probabilities.

    Parameters
    ----------
    ensemble_probabilities : shape (n_images, 7), before calibration.
    flagged : bool (n_images,), images that failed a check of quality or of what the model knows.
    """
    calibrated = rule.probability_calibration.apply(ensemble_probabilities)
    decisions = decide(calibrated, rule.thresholds, rule.priority)
    malignant = malignant_probability(calibrated)
    sets = conformal_set(calibrated, np.array(rule.conformal_minimum)) if rule.conformal_minimum else None
    levels = triage_levels(decisions.decided, malignant, rule.malignant_threshold, sets, flagged)
    return Outcome(calibrated, decisions, malignant, levels, sets)


def triage_levels(
    decided: np.ndarray,
    malignant: np.ndarray,
    malignant_threshold: float | None,
    sets: np.ndarray | None,
    flagged: np.ndarray | None = None,
) -> np.ndarray:
    """`review` before `refer` before `routine`: an array of str of shape (n_images,).

    review : the conformal set holds benign and malignant classes, or none at all, or only malignant ones
        where nothing else refers; or the image is flagged. Someone has to look.
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
