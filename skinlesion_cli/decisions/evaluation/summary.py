"""What an evaluation says, as nested mappings of plain values (NaN where undefined)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from skinlesion_cli.decisions import triage
from skinlesion_cli.decisions.evaluation.calibration_figures import calibration_figures
from skinlesion_cli.decisions.evaluation.figures import Figures, Labelled
from skinlesion_cli.decisions.evaluation.targets_met import lesion_share, levels_kept, targets_met
from skinlesion_cli.decisions.evaluation.triage_figures import triage_figures
from skinlesion_cli.decisions.levels import LEVELS, ROUTINE
from skinlesion_cli.decisions.settings import Target
from skinlesion_cli.decisions.statistics import metrics
from skinlesion_cli.decisions.statistics.lesions import group
from skinlesion_cli.taxonomy import ClassList


def summarise(
    data: Labelled,
    figures: Figures,
    targets: Sequence[Target] = (),
    guaranteed: Sequence[Target] = (),
    levels: np.ndarray | None = None,
    subgroups: Mapping[str, np.ndarray] | None = None,
    alarms: Mapping[str, np.ndarray] | None = None,
    level_guarantees: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Support, figures with intervals, confusion matrix, the targets that were met, triage and subgroups.

    Parameters
    ----------
    targets : what was wanted. guaranteed : what the calibration guarantees instead of or as well as it.
    levels : triage level of each image. subgroups : the masks that `figures` were made with.
    alarms : bool (n_images,) by name, judged by targets of theirs instead of the decided class.
    level_guarantees : of `refer` and `routine`, see `triage_fit.LevelGuarantee`.
    """
    labels, classes = np.asarray(data.labels), data.classes
    lesions = group(data.lesion_ids, labels)

    def met(of: Sequence[Target]) -> list[dict[str, Any]]:
        judged = targets_met(labels, data.decided, data.lesion_ids, of, classes, alarms)
        return [asdict(each) for each in judged]

    main = [name for name in figures.values if not name.startswith("subgroup/")]
    return {
        "support": {
            "images": len(labels),
            "lesions": lesions.n,
            "images_by_class": _by_class(labels, classes),
            "lesions_by_class": _by_class(labels[lesions.first], classes),
            "classes_without_images": list(metrics.missing_classes(labels, classes)),
        },
        "figures": {name: asdict(figures.estimate(name)) for name in main},
        "argmax_bacc": metrics.balanced_accuracy(labels, metrics.scored_argmax(data.probabilities)),
        "confusion_matrix": metrics.confusion_matrix(labels, data.decided, classes.n_classes),
        "calibration": calibration_figures(labels, data.probabilities, classes),
        "targets": met(targets),
        "guarantees": met(guaranteed),
        "level_guarantees": []
        if levels is None
        else [
            asdict(kept) for kept in levels_kept(labels, levels, data.lesion_ids, level_guarantees, classes)
        ],
        "triage": None if levels is None else _triage(levels, labels, lesions.codes, classes),
        "triage_figures": None
        if levels is None
        else triage_figures(
            labels,
            triage.malignant_probability(data.probabilities, classes),
            levels,
            data.lesion_ids,
            classes,
        ),
        "subgroups": {name: _subgroup(name, mask, data, figures) for name, mask in (subgroups or {}).items()},
    }


def _by_class(labels: np.ndarray, classes: ClassList) -> dict[str, int]:
    counts = np.bincount(labels, minlength=classes.n_classes)
    return dict(zip(classes.codes, counts.tolist(), strict=True))


def _triage(levels: np.ndarray, labels: np.ndarray, codes: np.ndarray, classes: ClassList) -> dict[str, Any]:
    ill = classes.is_malignant[labels]
    levels_summary: dict[str, Any] = {}
    for level in LEVELS:
        at = levels == level
        levels_summary[level] = {
            "images": int(at.sum()),
            "share_of_malignant": float(metrics.ratio((at & ill).sum(), ill.sum())),
            "share_of_benign": float(metrics.ratio((at & ~ill).sum(), (~ill).sum())),
        }
    seen = levels != ROUTINE
    levels_summary["malignant_lesions_seen"] = asdict(lesion_share(seen[ill], codes[ill]))
    return levels_summary


def _subgroup(name: str, mask: np.ndarray, data: Labelled, figures: Figures) -> dict[str, Any]:
    labels = data.labels[mask]
    return {
        "images": int(mask.sum()),
        "lesions": len(set(data.lesion_ids[mask])),
        "malignant_images": int(data.classes.is_malignant[labels].sum()),
        "classes_without_images": list(metrics.missing_classes(labels, data.classes)),
        **{
            figure: asdict(figures.estimate(f"subgroup/{name}/{figure}"))
            for figure in ("bacc", "malignant_sensitivity", "malignant_specificity")
        },
    }
