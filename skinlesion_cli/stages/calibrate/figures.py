"""What a calibration is worth: the figures that are stored with it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.decisions import triage
from skinlesion_cli.decisions.evaluation.targets_met import lesion_share
from skinlesion_cli.decisions.fit import CrossFitted, FittedRule
from skinlesion_cli.decisions.policies.registry import probability_method
from skinlesion_cli.decisions.probability_fit import sharpness
from skinlesion_cli.decisions.settings import FitSettings
from skinlesion_cli.decisions.statistics import metrics
from skinlesion_cli.decisions.statistics.bounds import binomial_interval
from skinlesion_cli.decisions.statistics.lesions import group, votes
from skinlesion_cli.taxonomy import CLASS_NAMES


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def support(validation: Predictions) -> dict[str, Any]:
    """How many images and lesions there are, and lesions of each class."""
    lesions = group(validation.lesion_ids, validation.labels)
    by_class = np.bincount(validation.labels[lesions.first], minlength=len(CLASS_NAMES))
    return {
        "images": len(validation.table),
        "lesions": lesions.n,
        "lesions_by_class": dict(zip(CLASS_NAMES, by_class.tolist(), strict=True)),
    }


def decision_figures(labels: np.ndarray, unseen: CrossFitted, plain: np.ndarray) -> dict[str, Any]:
    """Balanced accuracy of the argmax and of decisions by thresholds that had not seen the lesion."""
    return {
        "argmax_bacc": _defined(metrics.balanced_accuracy(labels, plain.argmax(axis=1))),
        "cross_fitted_bacc": _defined(metrics.balanced_accuracy(labels, unseen.decided)),
    }


def probability_figures(
    labels: np.ndarray, plain: np.ndarray, unseen: CrossFitted, settings: FitSettings
) -> dict[str, Any]:
    """Before and after; after is cross-fitted: no image is judged by a fit that saw its lesion."""
    return {
        "method": probability_method(settings),
        "before": asdict(sharpness(labels, plain)),
        "after_cross_fitted": asdict(sharpness(labels, unseen.probabilities)),
    }


def triage_figures(
    labels: np.ndarray,
    lesion_ids: np.ndarray,
    unseen: CrossFitted,
    fitted: FittedRule,
    settings: FitSettings,
) -> dict[str, Any]:
    """Cross-fitted rates of every level, one vote a lesion where an interval is given."""
    lesions = group(lesion_ids, labels)
    malignant = triage.IS_MALIGNANT[labels]
    rates: dict[str, Any] = {}
    for level in triage.LEVELS:
        at = unseen.triage == level
        rates[level] = {
            "share_of_images": float(at.mean()),
            "share_of_malignant_images": _defined(
                float(metrics.ratio((at & malignant).sum(), malignant.sum()))
            ),
            "share_of_benign_images": _defined(
                float(metrics.ratio((at & ~malignant).sum(), (~malignant).sum()))
            ),
        }
    mine = votes(
        (unseen.triage == triage.ROUTINE)[malignant].astype(float), lesions.codes[malignant], upper=True
    )
    missed = int(mine.sum())
    low, high = binomial_interval(missed, len(mine))
    coverage = {}
    for index, name in enumerate(CLASS_NAMES):
        held = unseen.conformal_sets[labels == index, index]
        coverage[name] = _defined(float(held.mean())) if held.size else None
    return {
        "levels": rates,
        "malignant_lesions_sent_home": {
            "lesions": len(mine),
            "missed": missed,
            "share": _defined(float(metrics.ratio(missed, len(mine)))),
            "interval_95": [_defined(low), _defined(high)],
        },
        "review_because": _review_reasons(unseen.conformal_sets),
        "operating_point": asdict(fitted.operating_point)
        | {
            "cross_fitted_sensitivity": asdict(
                lesion_share(unseen.over[malignant], lesions.codes[malignant])
            ),
            "cross_fitted_specificity": asdict(
                lesion_share(~unseen.over[~malignant], lesions.codes[~malignant])
            ),
        },
        "conformal": {"coverage_wanted": settings.coverage, "coverage_by_class": coverage},
        "mean_set_size": float(unseen.conformal_sets.sum(axis=1).mean()),
    }


def _review_reasons(sets: np.ndarray) -> dict[str, float]:
    """Share of images with each reason that a prediction set gives to look again."""
    ill, well = sets[:, triage.IS_MALIGNANT].any(axis=1), sets[:, ~triage.IS_MALIGNANT].any(axis=1)
    return {
        "set_holds_benign_and_malignant": float((ill & well).mean()),
        "set_is_empty": float((~ill & ~well).mean()),
    }
