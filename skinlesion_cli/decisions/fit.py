"""Fitting the whole decision rule to labelled predictions: one function, so that it can be cross-fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from skinlesion_cli.decisions import probability_fit, triage_fit
from skinlesion_cli.decisions.policies.base import Guarantee
from skinlesion_cli.decisions.policies.registry import policy_of, probability_method
from skinlesion_cli.decisions.settings import FitSettings
from skinlesion_cli.decisions.statistics.folds import grouped_folds
from skinlesion_cli.decisions.thresholds import priority_order
from skinlesion_cli.decisions.triage import DecisionRule, apply_rule
from skinlesion_cli.decisions.triage_fit import OperatingPoint
from skinlesion_cli.errors import DataError


@dataclass(frozen=True)
class FittedRule:
    """`guarantees` only for `guaranteed`; `search` only for `published`:
    which of its searches found each θ.
    """

    rule: DecisionRule
    operating_point: OperatingPoint
    guarantees: tuple[Guarantee, ...] = ()
    search: Mapping[str, str] = field(default_factory=dict)


def fit_rule(
    labels: np.ndarray, probabilities: np.ndarray, lesion_ids: np.ndarray, settings: FitSettings
) -> FittedRule:
    """Fit probability calibration, thresholds and triage.

    Parameters
    ----------
    labels : int64 (n_images,). probabilities : (n_images, 7), of the ensemble. lesion_ids : (n_images,).

    Raises
    ------
    DataError : no images, or fewer than two classes among them: there is nothing to tell apart.
    """
    classes = np.unique(labels)
    if len(classes) < 2:
        raise DataError(
            f"calibration needs images of at least two classes, there are {len(labels)} images of "
            f"{len(classes)}",
            "Bring labelled validation predictions of more classes.",
        )
    calibration = probability_fit.fit(labels, probabilities, probability_method(settings))
    values = calibration.apply(probabilities)
    chosen = policy_of(settings).find(labels, values, lesion_ids, settings)
    point = triage_fit.malignant_operating_point(
        labels,
        values,
        lesion_ids,
        settings.malignant_sensitivity,
        settings.guarantee.confidence,
        settings.guarantee.horizon,
    )
    rule = DecisionRule(
        probability_calibration=calibration,
        thresholds=chosen.thresholds,
        priority=tuple(priority_order(chosen.thresholds, settings.priority)),
        malignant_threshold=point.threshold,
        conformal_minimum=triage_fit.conformal_minima(labels, values, lesion_ids, settings.coverage),
    )
    return FittedRule(rule, point, chosen.guarantees, chosen.search)


@dataclass(frozen=True)
class CrossFitted:
    """What rules fitted without an image's lesion say of it; arrays as in `triage.Outcome`.

    `over` : bool (n_images,), the malignant probability is above the operating point.
    """

    probabilities: np.ndarray
    decided: np.ndarray
    triage: np.ndarray
    conformal_sets: np.ndarray
    over: np.ndarray


def cross_fit(
    labels: np.ndarray,
    probabilities: np.ndarray,
    lesion_ids: np.ndarray,
    settings: FitSettings,
    n_folds: int = 5,
) -> CrossFitted:
    """Decide on every image by a rule that never saw its lesion."""
    n = len(labels)
    calibrated = np.empty((n, probabilities.shape[1]), dtype=np.float32)
    decided, levels = np.empty(n, dtype=np.int64), np.empty(n, dtype="<U8")
    sets = np.empty((n, probabilities.shape[1]), dtype=bool)
    over = np.empty(n, dtype=bool)
    for train, held_out in grouped_folds(labels, lesion_ids, n_folds):
        fitted = fit_rule(labels[train], probabilities[train], lesion_ids[train], settings)
        outcome = apply_rule(fitted.rule, probabilities[held_out])
        calibrated[held_out], decided[held_out] = outcome.probabilities, outcome.decisions.decided
        levels[held_out], sets[held_out] = outcome.triage, outcome.conformal_sets
        over[held_out] = outcome.malignant_probability.astype(np.float64) > fitted.operating_point.threshold
    return CrossFitted(calibrated, decided, levels, sets, over)
