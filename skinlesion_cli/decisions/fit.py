"""Fitting the whole decision rule to labelled predictions: one function, so that it can be cross-fitted.

Three answers are fitted, each for what it is for: probabilities that are calibrated class by class; a class
of the best balanced accuracy; and alarms and levels of triage with guarantees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from skinlesion_cli.decisions import probability_fit, triage_fit
from skinlesion_cli.decisions.class_fit import fit_class_offsets
from skinlesion_cli.decisions.policies.base import Guarantee
from skinlesion_cli.decisions.policies.published import default_priority
from skinlesion_cli.decisions.policies.registry import policy_of
from skinlesion_cli.decisions.settings import FitSettings
from skinlesion_cli.decisions.statistics.folds import grouped_folds
from skinlesion_cli.decisions.statistics.lesions import group
from skinlesion_cli.decisions.thresholds import decide, priority_order
from skinlesion_cli.decisions.triage import (
    DecisionRule,
    apply_rule,
    conformal_set,
    malignant_probability,
    raised,
)
from skinlesion_cli.decisions.triage_fit import LevelGuarantee
from skinlesion_cli.errors import DataError
from skinlesion_cli.taxonomy import ClassList


@dataclass(frozen=True)
class FittedRule:
    """`guarantees` of the alarms, only for `guaranteed`; `level_guarantees` of `refer` and `routine`, none
    where no class is malignant;
    `search` only for `published`: which of its searches found each θ."""

    rule: DecisionRule
    level_guarantees: tuple[LevelGuarantee, ...]
    guarantees: tuple[Guarantee, ...] = ()
    search: Mapping[str, str] = field(default_factory=dict)


def fit_rule(
    labels: np.ndarray,
    probabilities: np.ndarray,
    lesion_ids: np.ndarray,
    settings: FitSettings,
    classes: ClassList,
) -> FittedRule:
    """Fit probability calibration, class, alarms or thresholds, and triage.

    Parameters
    ----------
    labels : int64 (n_images,). probabilities : (n_images, n_classes), of the ensemble. lesion_ids :
        (n_images,).

    Raises
    ------
    DataError : no images, or fewer than two classes among them: there is nothing to tell apart.
    UsageError : the policy cannot work with these settings or classes.
    """
    present = np.unique(labels)
    if len(present) < 2:
        raise DataError(
            f"calibration needs images of at least two classes, there are {len(labels):,} images of "
            f"{len(present)}",
            "Calibrate on labelled images of more classes.",
        )
    policy, labels = policy_of(settings, classes), np.asarray(labels)
    calibration = probability_fit.fit(labels, probabilities, policy.method(settings))
    values = calibration.apply(probabilities)
    offsets = () if policy.overrides else fit_class_offsets(labels, values)
    chosen = policy.find(labels, values, lesion_ids, settings, classes)
    priority = tuple(
        priority_order(chosen.thresholds, settings.priority or default_priority(classes), classes)
    )
    minima = triage_fit.conformal_minima(labels, values, lesion_ids, settings.triage.coverage)
    rule = DecisionRule(
        classes=classes,
        probability_calibration=calibration,
        class_offsets=offsets,
        thresholds=chosen.thresholds,
        priority=priority,
        alarms=chosen.alarms,
        conformal_minimum=minima,
    )
    level_guarantees: tuple[LevelGuarantee, ...] = ()
    if classes.has_malignant:
        decided = decide(values, chosen.thresholds, classes, priority, offsets).decided
        malignant = malignant_probability(values, classes)
        sets = conformal_set(values, np.array(minima))
        raising = raised(values, malignant, decided, chosen.alarms, sets, classes)
        levels, level_guarantees = triage_fit.fit_levels(
            labels,
            malignant,
            group(lesion_ids, labels).codes,
            np.any([mask for mask, _ in raising], axis=0),
            settings.triage,
            settings.each_confidence(len(chosen.guarantees)),
            classes,
        )
        rule = replace(rule, levels=levels)
    return FittedRule(rule, level_guarantees, chosen.guarantees, chosen.search)


@dataclass(frozen=True)
class CrossFitted:
    """What rules fitted without an image's lesion say of it; arrays as in `triage.Outcome`; `triage` None
    where no class is malignant.

    `alarms` : bool (n_images,) by name.
    """

    probabilities: np.ndarray
    decided: np.ndarray
    triage: np.ndarray | None
    conformal_sets: np.ndarray
    alarms: Mapping[str, np.ndarray]


def cross_fit(
    labels: np.ndarray,
    probabilities: np.ndarray,
    lesion_ids: np.ndarray,
    settings: FitSettings,
    classes: ClassList,
    n_folds: int = 5,
) -> CrossFitted:
    """Decide on every image by a rule that never saw its lesion."""
    n = len(labels)
    calibrated = np.empty((n, probabilities.shape[1]), dtype=np.float32)
    decided, levels = np.empty(n, dtype=np.int64), np.empty(n, dtype="<U8")
    sets = np.empty((n, probabilities.shape[1]), dtype=bool)
    alarms: dict[str, np.ndarray] = {}
    for train, held_out in grouped_folds(labels, lesion_ids, n_folds):
        fitted = fit_rule(labels[train], probabilities[train], lesion_ids[train], settings, classes)
        outcome = apply_rule(fitted.rule, probabilities[held_out])
        calibrated[held_out], decided[held_out] = outcome.probabilities, outcome.decisions.decided
        sets[held_out] = outcome.conformal_sets
        if outcome.triage is not None:
            levels[held_out] = outcome.triage
        for name, fires in outcome.alarms.items():
            alarms.setdefault(name, np.zeros(n, dtype=bool))[held_out] = fires
    return CrossFitted(calibrated, decided, levels if classes.has_malignant else None, sets, alarms)
