"""Triage by calibrations that were written before alarms and risk levels existed (version 0.1).

They hold at most one threshold on the malignant probability, and are applied as they were when they were
fitted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skinlesion_cli.decisions import reasons as words
from skinlesion_cli.decisions.levels import REFER, REVIEW, ROUTINE
from skinlesion_cli.taxonomy import ClassList


def former_triage_levels(
    decided: np.ndarray,
    malignant: np.ndarray,
    malignant_threshold: float | None,
    sets: np.ndarray | None,
    classes: ClassList,
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
    refer = classes.is_malignant[decided] | over
    review = np.zeros(len(decided), bool) if flagged is None else np.asarray(flagged, bool).copy()
    if sets is not None:
        holds_malignant = sets[:, classes.is_malignant].any(axis=1)
        holds_benign = sets[:, ~classes.is_malignant].any(axis=1)
        review |= (holds_malignant == holds_benign) | (holds_malignant & ~refer)
    return np.select([review, refer], [REVIEW, REFER], default=ROUTINE)


def former_reasons(
    levels: np.ndarray,
    decided: np.ndarray,
    malignant: np.ndarray,
    malignant_threshold: float | None,
    sets: np.ndarray | None,
    classes: ClassList,
    flagged: np.ndarray | None,
    failed_checks: Sequence[Sequence[str]] | None,
) -> tuple[str, ...]:
    """Why each image has its level by `former_triage_levels`, in words."""
    said = words.flag_reasons(failed_checks, len(levels))
    reasons = []
    for index, level in enumerate(levels):
        risk, because = float(malignant[index]), []
        over = malignant_threshold is not None and risk > malignant_threshold
        if level == REVIEW:
            because += [said[index]] if flagged is not None and flagged[index] else []
            because += [words.plausible_reason(sets[index], classes)] if sets is not None else []
        elif level == REFER:
            if over and malignant_threshold is not None:
                because.append(words.risk_reason(risk, ">", malignant_threshold))
            because += (
                [f"decided {classes.codes[decided[index]]}"] if classes.is_malignant[decided[index]] else []
            )
        else:
            because.append(f"decided {classes.codes[decided[index]]}")
            if malignant_threshold is not None:
                because.append(words.risk_reason(risk, "<=", malignant_threshold))
        reasons.append("; ".join(because))
    return tuple(reasons)
