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
from skinlesion_cli.decisions.policies.registry import probability_method
from skinlesion_cli.decisions.settings import FitSettings
from skinlesion_cli.decisions.statistics import metrics
from skinlesion_cli.decisions.statistics.bounds import binomial_interval
from skinlesion_cli.decisions.statistics.lesions import group, votes
from skinlesion_cli.taxonomy import CLASS_INDEX, CLASS_NAMES, MALIGNANT


def support(validation: Predictions) -> dict[str, Any]:
    """How many images and lesions there are, and lesions of each class."""
    lesions = group(validation.lesion_ids, validation.labels)
    by_class = np.bincount(validation.labels[lesions.first], minlength=len(CLASS_NAMES))
    return {
        "images": len(validation.table),
        "lesions": lesions.n,
        "lesions_by_class": dict(zip(CLASS_NAMES, by_class.tolist(), strict=True)),
    }


def decision_figures(
    labels: np.ndarray, lesion_ids: np.ndarray, unseen: CrossFitted, plain: np.ndarray
) -> dict[str, Any]:
    """Balanced accuracy of the argmax before calibration and of the decided class, cross-fitted; and their
    difference with its paired interval."""
    before = plain.argmax(axis=1)
    return {
        "argmax_bacc": metrics.balanced_accuracy(labels, before),
        "cross_fitted_bacc": metrics.balanced_accuracy(labels, unseen.decided),
        "bacc_gain": asdict(bacc_difference(labels, lesion_ids, unseen.decided, before)),
    }


def probability_figures(
    labels: np.ndarray, plain: np.ndarray, unseen: CrossFitted, settings: FitSettings
) -> dict[str, Any]:
    """Before and after; after is cross-fitted: no image is judged by a fit that saw its lesion."""
    return {
        "method": probability_method(settings),
        "before": calibration_figures(labels, plain),
        "after_cross_fitted": calibration_figures(labels, unseen.probabilities),
    }


def triage_figures(
    labels: np.ndarray, lesion_ids: np.ndarray, unseen: CrossFitted, settings: FitSettings
) -> dict[str, Any]:
    """Cross-fitted figures of every level and alarm; one vote per lesion where an exact interval is given."""
    lesions = group(lesion_ids, labels)
    malignant = triage.IS_MALIGNANT[labels]
    risk = triage.malignant_probability(unseen.probabilities)
    routine = votes(
        (unseen.triage == triage.ROUTINE)[malignant].astype(float), lesions.codes[malignant], upper=True
    )
    missed = int(routine.sum())
    coverage = {}
    for index, name in enumerate(CLASS_NAMES):
        held = unseen.conformal_sets[labels == index, index]
        coverage[name] = float(held.mean()) if held.size else float("nan")
    return {
        **by_level(labels, risk, unseen.triage, lesion_ids),
        "malignant_lesions_in_routine": {
            "lesions": len(routine),
            "missed": missed,
            "share": float(metrics.ratio(missed, len(routine))),
            "interval_95": list(binomial_interval(missed, len(routine))),
        },
        "alarms": {
            name: _alarm(
                fires, malignant if name == MALIGNANT else labels == CLASS_INDEX[name], lesions.codes
            )
            for name, fires in unseen.alarms.items()
        },
        "conformal": {"coverage_wanted": settings.triage.coverage, "coverage_by_class": coverage},
        "mean_set_size": float(unseen.conformal_sets.sum(axis=1).mean()),
    }


def _alarm(fires: np.ndarray, positive: np.ndarray, codes: np.ndarray) -> dict[str, Any]:
    return {
        "share_of_images": float(fires.mean()),
        "photograph_sensitivity": float(metrics.ratio(fires[positive].sum(), positive.sum())),
        "ppv": float(metrics.ratio(fires[positive].sum(), fires.sum())),
        "sensitivity": asdict(lesion_share(fires[positive], codes[positive])),
        "specificity": asdict(lesion_share(~fires[~positive], codes[~positive])),
    }
