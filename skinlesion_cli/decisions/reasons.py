"""Words for what decides a level of triage: the reasons of one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from skinlesion_cli.decisions.quality_gate import (
    HAIR,
    LOW_CONTRAST,
    MARKER,
    NOT_DERMOSCOPIC,
    TOO_BLURRED,
    TOO_BRIGHT,
    TOO_DARK,
    UNFAMILIAR,
)
from skinlesion_cli.taxonomy import MALIGNANT, ClassList

CHECK_WORDS: Mapping[str, str] = {
    TOO_BLURRED: "blurred",
    TOO_DARK: "too dark",
    TOO_BRIGHT: "too bright",
    LOW_CONTRAST: "too little contrast",
    HAIR: "covered by hair",
    MARKER: "covered by marker ink",
    NOT_DERMOSCOPIC: "unlike a dermoscopic image",
    UNFAMILIAR: "unlike the training images",
}
FLAGGED = "flagged by the quality gate"
_MOST_DIGITS = 6


def alarm_title(name: str, classes: ClassList) -> str:
    """What an alarm is called: the title of its class, or malignancy."""
    return "malignancy" if name == MALIGNANT else classes.titles[name]


def compared(score: float, sign: str, limit: float, digits: int = 2) -> str:
    """Two numbers with as few digits as show that they differ, at least `digits` after the point.

    >>> compared(0.3112, ">", 0.18), compared(0.0649, ">", 0.0648), compared(0.5, "<=", 0.5)
    ('0.31 > 0.18', '0.0649 > 0.0648', '0.50 <= 0.50')
    """
    while digits < _MOST_DIGITS and score != limit and f"{score:.{digits}f}" == f"{limit:.{digits}f}":
        digits += 1
    return f"{score:.{digits}f} {sign} {limit:.{digits}f}"


def alarm_reason(name: str, score: float, threshold: float, classes: ClassList) -> str:
    """Why an alarm fired.

    >>> from skinlesion_cli.taxonomy import shipped
    >>> alarm_reason("MEL", 0.31, 0.18, shipped("isic2018"))
    'melanoma alarm 0.31 > 0.18'
    >>> alarm_reason("malignant", 0.6, 0.2, shipped("isic2018"))
    'malignancy alarm 0.60 > 0.20'
    """
    return f"{alarm_title(name, classes)} alarm {compared(score, '>', threshold)}"


def risk_reason(risk: float, sign: str, limit: float, digits: int = 2) -> str:
    """On which side of a limit the malignant probability is.

    >>> risk_reason(0.31, ">", 0.18)
    'malignant probability 0.31 > 0.18'
    """
    return f"malignant probability {compared(risk, sign, limit, digits)}"


def plausible_reason(members: np.ndarray, classes: ClassList) -> str:
    """What a conformal set says, from bool (n_classes,).

    >>> from skinlesion_cli.taxonomy import shipped
    >>> plausible_reason(np.array([1, 0, 0, 0, 1, 0, 0], bool), shipped("isic2018"))
    'MEL or BKL both plausible'
    """
    names = [name for name, held in zip(classes.codes, members, strict=True) if held]
    if not names:
        return "no class is plausible"
    if len(names) == 1:
        return f"{names[0]} plausible"
    return f"{', '.join(names[:-1])} or {names[-1]} {'both' if len(names) == 2 else 'all'} plausible"


def flag_reasons(failed_checks: Sequence[Sequence[str]] | None, n: int) -> list[str]:
    """What the quality gate found of each of n images, `failed_checks` by name, in words.

    >>> flag_reasons([("too_blurred", "hair"), ()], 2)
    ['blurred, covered by hair', 'flagged by the quality gate']
    """
    if failed_checks is None:
        return [FLAGGED] * n
    return [
        ", ".join(CHECK_WORDS.get(check, check) for check in checks) or FLAGGED for checks in failed_checks
    ]
