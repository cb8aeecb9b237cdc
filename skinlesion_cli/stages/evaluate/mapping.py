"""Judging a model by coarser classes than it distinguishes."""

from __future__ import annotations

from dataclasses import replace

from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.decisions.policies.registry import ARGMAX
from skinlesion_cli.decisions.settings import Target
from skinlesion_cli.decisions.statistics import metrics
from skinlesion_cli.stages.evaluate.judged import Judged
from skinlesion_cli.taxonomy import (
    MALIGNANT,
    ClassList,
    ClassMapping,
    mapping_between,
)


def onto(judged: Judged, coarse: ClassList) -> Judged:
    """The same images judged by a coarser list: probabilities are summed, labels and decisions follow.

    An argmax is taken anew, of the sums; a decision of a calibration counts as the class that it belongs to.
    Levels of triage, alarms and targets are kept as far as they mean the same in both lists.

    Raises
    ------
    DataError : the list of the predictions does not map onto the other.
    """
    fine = judged.predictions.classes
    if fine.agrees_with(coarse):
        return judged
    mapping = mapping_between(fine, coarse)
    probabilities = mapping.probabilities(judged.probabilities)
    if judged.how == ARGMAX:
        decided = metrics.scored_argmax(probabilities)
    else:
        decided = mapping.labels(judged.decided)
    kept = _same_meaning(mapping)
    notes = list(mapping.sentences())
    levels = judged.levels
    if levels is not None and MALIGNANT not in kept:
        levels = None
        notes.append(
            f"no triage: {fine.name} counts other classes as malignant than {coarse.name} does, so that "
            "its levels are about something else"
        )

    def targets(given: tuple[Target, ...]) -> tuple[Target, ...]:
        return tuple(target for target in given if target.class_name in kept)

    return replace(
        judged,
        predictions=_mapped(judged.predictions, mapping),
        probabilities=probabilities,
        decided=decided,
        targets=targets(judged.targets),
        guaranteed=targets(judged.guaranteed),
        levels=levels,
        alarms={name: fires for name, fires in judged.alarms.items() if name in kept},
        level_guarantees=() if levels is None else judged.level_guarantees,
        notes=(*judged.notes, *notes),
    )


def _same_meaning(mapping: ClassMapping) -> set[str]:
    """Classes that are the same in both lists, and `malignant` where every class is so in both or in
    neither.
    """
    same = {code for code, names in mapping.counts_as().items() if names == (code,)}
    if (mapping.fine.is_malignant == mapping.coarse.is_malignant[list(mapping.positions)]).all():
        same.add(MALIGNANT)
    return same


def _mapped(predictions: Predictions, mapping: ClassMapping) -> Predictions:
    counts_as = {name: code for code, names in mapping.counts_as().items() for name in names} | {
        code: code for code in mapping.coarse.codes if code not in mapping.fine.index
    }
    groups = predictions.group_probabilities
    return replace(
        predictions,
        table=predictions.table.assign(label=predictions.table["label"].map(counts_as)),
        view_probabilities=mapping.probabilities(predictions.view_probabilities),
        group_probabilities=None if groups is None else mapping.probabilities(groups),
        classes=mapping.coarse,
    )
