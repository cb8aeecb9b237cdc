"""What a calibration is worth: the figures that are stored with it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.decisions import triage
from skinlesion_cli.decisions.evaluation.calibration_figures import calibration_figures
from skinlesion_cli.decisions.evaluation.difference import bacc_difference
from skinlesion_cli.decisions.evaluation.targets_met import lesion_share
from skinlesion_cli.decisions.evaluation.triage_figures import triage_figures as by_level
from skinlesion_cli.decisions.fit import CrossFitted
from skinlesion_cli.decisions.levels import ROUTINE
from skinlesion_cli.decisions.policies.registry import policy_of
from skinlesion_cli.decisions.settings import FitSettings
from skinlesion_cli.decisions.statistics import metrics
from skinlesion_cli.decisions.statistics.bounds import binomial_interval
from skinlesion_cli.decisions.statistics.lesions import group, votes
from skinlesion_cli.taxonomy import MALIGNANT, ClassList


def support(validation: Predictions) -> dict[str, Any]:
    """How many images and lesions there are, and lesions of each class."""
    lesions = group(validation.lesion_ids, validation.labels)
    by_class = np.bincount(validation.labels[lesions.first], minlength=validation.classes.n_classes)
    return {
        "images": len(validation.table),
        "lesions": lesions.n,
        "lesions_by_class": dict(zip(validation.classes.codes, by_class.tolist(), strict=True)),
    }


def decision_figures(
    labels: np.ndarray,
    lesion_ids: np.ndarray,
    unseen: CrossFitted,
    plain: np.ndarray,
    classes: ClassList,
) -> dict[str, Any]:
    """Balanced accuracy of the argmax before calibration and of the decided class, cross-fitted; and their
    difference with its paired interval."""
    before = plain.argmax(axis=1)
    return {
        "argmax_bacc": metrics.balanced_accuracy(labels, before),
        "cross_fitted_bacc": metrics.balanced_accuracy(labels, unseen.decided),
        "bacc_gain": asdict(bacc_difference(labels, lesion_ids, unseen.decided, before, classes)),
    }


def probability_figures(
    labels: np.ndarray,
    plain: np.ndarray,
    unseen: CrossFitted,
    settings: FitSettings,
    classes: ClassList,
) -> dict[str, Any]:
    """Before and after; after is cross-fitted: no image is judged by a fit that saw its lesion."""
    return {
        "method": policy_of(settings, classes).method(settings),
        "before": calibration_figures(labels, plain, classes),
        "after_cross_fitted": calibration_figures(labels, unseen.probabilities, classes),
    }


def triage_figures(
    labels: np.ndarray,
    lesion_ids: np.ndarray,
    unseen: CrossFitted,
    settings: FitSettings,
    classes: ClassList,
) -> dict[str, Any]:
    """Cross-fitted figures of every level and alarm; one vote per lesion where an exact interval is given.

    Without a malignant class there are no levels, and nothing is said of them.
    """
    lesions = group(lesion_ids, labels)
    malignant = classes.is_malignant[labels]
    coverage = {}
    for index, name in enumerate(classes.codes):
        held = unseen.conformal_sets[labels == index, index]
        coverage[name] = float(held.mean()) if held.size else float("nan")
    of_levels = {}
    if unseen.triage is not None:
        risk = triage.malignant_probability(unseen.probabilities, classes)
        of_levels = {
            **by_level(labels, risk, unseen.triage, lesion_ids, classes),
            "malignant_lesions_in_routine": _missed(
                (unseen.triage == ROUTINE)[malignant], lesions.codes[malignant]
            ),
        }
    return {
        **of_levels,
        "alarms": {
            name: _alarm(
                fires, malignant if name == MALIGNANT else labels == classes.index[name], lesions.codes
            )
            for name, fires in unseen.alarms.items()
        },
        "conformal": {"coverage_wanted": settings.triage.coverage, "coverage_by_class": coverage},
        "mean_set_size": float(unseen.conformal_sets.sum(axis=1).mean()),
    }


def _missed(routine: np.ndarray, codes: np.ndarray) -> dict[str, Any]:
    """Of the malignant lesions, those of which at least half of the photographs are routine."""
    votes_of = votes(routine.astype(float), codes, upper=True)
    missed = int(votes_of.sum())
    return {
        "lesions": len(votes_of),
        "missed": missed,
        "share": float(metrics.ratio(missed, len(votes_of))),
        "interval_95": list(binomial_interval(missed, len(votes_of))),
    }


def _alarm(fires: np.ndarray, positive: np.ndarray, codes: np.ndarray) -> dict[str, Any]:
    return {
        "share_of_images": float(fires.mean()),
        "photograph_sensitivity": float(metrics.ratio(fires[positive].sum(), positive.sum())),
        "ppv": float(metrics.ratio(fires[positive].sum(), fires.sum())),
        "sensitivity": asdict(lesion_share(fires[positive], codes[positive])),
        "specificity": asdict(lesion_share(~fires[~positive], codes[~positive])),
    }
