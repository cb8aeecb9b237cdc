"""What `calibrate` says when it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from skinlesion_cli.artifacts.calibration import Calibration
from skinlesion_cli.decisions.adaptive.forward_passes import ONE_STEP
from skinlesion_cli.decisions.fit import FittedRule
from skinlesion_cli.decisions.levels import REFER, ROUTINE
from skinlesion_cli.decisions.policies.base import Guarantee
from skinlesion_cli.decisions.triage_fit import LevelGuarantee
from skinlesion_cli.result import StageResult, Table, percent
from skinlesion_cli.taxonomy.class_list import ClassList

TOO_WEAK = (
    "too weak to triage: every image would go to review; train longer, start from the bundled model "
    "(skinlesion train --init builtin --recipe fast), or calibrate on more images"
)

_ERRORS = {
    "class_error": "calibration error, mean over classes",
    "ece": "calibration error of the top class (ECE)",
    "brier": "Brier score",
    "log_loss": "log loss",
}

NO_TRIAGE = (
    "no class of {classes} is malignant: there is no triage, and results have neither a malignant "
    "probability nor a level"
)


def describe_guarantee(guarantee: Guarantee) -> str:
    """What is guaranteed of one alarm, and if it is less than the target, why and what would be enough."""
    start = f"  alarm {guarantee.class_name} (above {guarantee.threshold:.4f}): "
    if guarantee.sensitivity is None:
        kept = "no sensitivity is guaranteed"
    else:
        kept = f"sensitivity at least {guarantee.sensitivity:.3f} per lesion"
        if guarantee.photograph_sensitivity is not None:
            kept += f", {guarantee.photograph_sensitivity:.3f} per photograph"
        if guarantee.specificity is not None:
            kept += f", specificity at least {guarantee.specificity:.3f}"
        if guarantee.next_sensitivity is not None:
            kept += (
                f"; of the next {guarantee.next_lesions:,} lesions, at least {guarantee.next_sensitivity:.3f}"
            )
        kept += f" ({guarantee.missed} of {guarantee.lesions} lesions missed)"
    if guarantee.granted:
        return start + kept
    wanted = f"sensitivity {guarantee.target_sensitivity:.2f}"
    if guarantee.target_specificity is not None:
        wanted += f", specificity {guarantee.target_specificity:.2f}"
    more = (
        f"more {guarantee.class_name} lesions alone would not be enough: the networks have to get better"
        if guarantee.more_lesions is None
        else f"about {guarantee.more_lesions:,} more {guarantee.class_name} lesions would be enough"
    )
    return f"{start}{kept}. The target ({wanted}) is not guaranteed: {guarantee.reason}; {more}"


def describe_level(guarantee: LevelGuarantee) -> str:
    """Where a level lies, and what is guaranteed of the images in it."""
    if guarantee.figure == "ppv":
        where = f"  refer (malignant probability above {guarantee.limit:.3f}): "
        bound = "at least"
    elif guarantee.limit < 0:
        where, bound = "  routine: ", "at most"
    else:
        where = f"  routine (malignant probability of at most {guarantee.limit:.3f}): "
        bound = "at most"
    if guarantee.guaranteed is None or guarantee.measured is None:
        kept = "no image"
    else:
        kept = (
            f"{bound} {guarantee.guaranteed:.3f} of the images are malignant "
            f"(measured {guarantee.measured:.3f})"
        )
    if guarantee.granted:
        return where + kept
    return (
        f"{where}{kept}. The target ({bound} {guarantee.target:.2f} malignant) is not guaranteed: there are "
        "too few lesions, or the networks do not separate malignant from benign ones well enough"
    )


def with_metadata(result: StageResult, informed: Calibration, path: Path) -> StageResult:
    """The same with the second calibration, which decides on images of which age, sex or site is known."""
    kept = ("support", "guarantees", "level_guarantees", "probability_figures", "triage_figures")
    return replace(
        result,
        headline=[
            *result.headline,
            f"with patient metadata, which has a calibration of its own: {_bacc(informed.support)}",
        ],
        figures={**result.figures, "with_metadata": {name: getattr(informed, name) for name in kept}},
        artifacts=[*result.artifacts, str(path)],
    )


def result(calibration: Calibration, fitted: FittedRule, path: Path, next_command: str | None) -> StageResult:
    """The headline, tables and warnings of a calibration; `next_command` where it is of use."""
    support = calibration.support
    headline = [
        f"policy {calibration.policy} on {support['images']:,} validation images of "
        f"{support['lesions']:,} lesions",
        *_confidence(calibration, fitted),
        *(describe_guarantee(guarantee) for guarantee in fitted.guarantees),
        *(describe_level(guarantee) for guarantee in fitted.level_guarantees),
        _bacc(support),
    ]
    if calibration.stopping is not None:
        headline.append(describe_stopping(calibration.stopping, calibration.classes))
    levels = calibration.triage_figures.get("levels")
    usable = levels is None or levels[REFER]["images"] + levels[ROUTINE]["images"] > 0
    return StageResult(
        command="calibrate",
        headline=headline,
        figures={
            "policy": calibration.policy,
            "tta_mode": calibration.tta_mode,
            "views": list(calibration.views),
            "rule": calibration.rule.to_json(),
            "confidence": calibration.confidence,
            "guarantees": list(calibration.guarantees),
            "level_guarantees": list(calibration.level_guarantees),
            "probability_calibration": calibration.probability_figures,
            "triage": calibration.triage_figures,
            "support": support,
            "stopping": calibration.stopping,
        },
        tables=_tables(calibration),
        artifacts=[str(path)],
        warnings=[
            *_warnings(fitted),
            *([] if usable else [TOO_WEAK]),
            *([NO_TRIAGE.format(classes=calibration.classes.described)] if levels is None else []),
        ],
        next_command=next_command if usable else None,
    )


def _confidence(calibration: Calibration, fitted: FittedRule) -> list[str]:
    if calibration.confidence is None or not (fitted.guarantees or fitted.level_guarantees):
        return []
    return [
        "guaranteed for new lesions like these (all guarantees together hold with a confidence of "
        f"{100 * calibration.confidence:g} %):"
    ]


def _bacc(support: Mapping[str, Any]) -> str:
    gain = support["bacc_gain"]
    return (
        "decided class, cross-fitted (each lesion is judged by a calibration that has not seen it): "
        f"balanced accuracy {_shown(support['cross_fitted_bacc'])}, "
        f"{_shown(gain['value'], '+.3f')} ({_shown(gain['low'], '+.3f')} to {_shown(gain['high'], '+.3f')}) "
        "over the argmax"
    )


def _warnings(fitted: FittedRule) -> list[str]:
    names = [guarantee.class_name for guarantee in fitted.guarantees if not guarantee.granted]
    warnings = [f"{name}: the target of its alarm is not guaranteed, see above" for name in names]
    warnings += [
        f"{name}: the published search found no threshold that meets the target ({rule})"
        for name, rule in fitted.search.items()
        if rule != "target"
    ]
    consequence = {"refer": "the target itself is used as the limit", "routine": "no image is routine"}
    warnings += [
        f"{guarantee.level}: the target share of malignant images is not guaranteed; "
        f"{consequence[guarantee.level]}"
        for guarantee in fitted.level_guarantees
        if not guarantee.granted
    ]
    return warnings


def _tables(calibration: Calibration) -> list[Table]:
    before, after = (calibration.probability_figures[key] for key in ("before", "after_cross_fitted"))
    figures = calibration.triage_figures
    thresholds = [[name, "alarm", f"{theta:.4f}"] for name, theta in calibration.rule.alarms.items()]
    thresholds += [[name, "decides the class", f"{t:.4f}"] for name, t in calibration.rule.thresholds.items()]
    method = calibration.probability_figures["method"]
    return [
        Table("Alarms and thresholds", ["class", "what it does", "fires above"], thresholds),
        Table(
            f"Probabilities ({method}, cross-fitted)",
            ["error", "before", "after"],
            [[name, _shown(before[key], ".4f"), _shown(after[key], ".4f")] for key, name in _ERRORS.items()],
        ),
        Table(
            f"Probabilities by class ({method}, cross-fitted)",
            ["class", "mean before", "mean after", "observed", "intercept", "slope"],
            [
                _class_row(name, before["by_class"][name], after["by_class"][name])
                for name in after["by_class"]
            ],
        ),
        *([_levels(figures["levels"])] if "levels" in figures else []),
    ]


def _levels(levels: Mapping[str, Any]) -> Table:
    keys = ("share", "share_of_malignant", "share_of_benign", "risk")
    return Table(
        "Triage of the validation images, cross-fitted (95 % intervals by lesion)",
        ["level", "of all images", "of malignant", "of benign", "malignant share"],
        [[level, *(_interval(row[key]) for key in keys)] for level, row in levels.items()],
    )


def _class_row(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [
        name,
        *(_shown(value) for value in (before["mean_predicted"], after["mean_predicted"], after["observed"])),
        _shown(after["intercept"], "+.2f"),
        _shown(after["slope"], ".2f"),
    ]


def _interval(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None or estimate["low"] is None:
        return _shown(estimate["value"])
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"


def _shown(value: float | None, form: str = ".3f") -> str:
    return "undefined" if value is None else format(value, form)


def describe_stopping(stopping: Mapping[str, Any], classes: ClassList) -> str:
    """What stopping early saves and changes; of triage only where images are triaged."""
    said = (
        f"adaptive: {stopping['mean_steps']:.2f} of {stopping['n_steps']} steps ({ONE_STEP}) on average; "
        f"{stopping['changed_images']:,} of {stopping['images']:,} images get another "
        f"{stopping['stopping_rule']['protects']} than with all steps (at most "
        f"{percent(stopping['upper_bound'], 2)} of lesions, confidence {percent(stopping['confidence'], 0)})"
    )
    if not classes.has_malignant:
        return said
    return f"{said}, {percent(stopping['triage_changed_share'])} another triage level"
