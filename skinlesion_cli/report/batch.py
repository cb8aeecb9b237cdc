"""The page to review a batch: counts, a gallery with the most urgent first, keyboard review,
and its export.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from skinlesion_cli.decisions.levels import LEVELS, REFER, REVIEW, ROUTINE
from skinlesion_cli.decisions.reasons import CHECK_WORDS
from skinlesion_cli.decisions.triage_policy import LevelRule
from skinlesion_cli.explain.placement import MOSTLY
from skinlesion_cli.inference.lesion_verdict import LesionVerdict, lesion_severity
from skinlesion_cli.inference.prediction import ERROR, IN_TRAINING, Prediction
from skinlesion_cli.inference.similar import describe_similar
from skinlesion_cli.report.page import data_uri, facts_table, render, script_json
from skinlesion_cli.taxonomy import ClassList

# Refer first; images that could not be read come before those that need no review.
_ORDER = {REFER: 0, REVIEW: 1, ERROR: 2, ROUTINE: 3}
# In place of a level where no class is malignant, so that there is no triage.
PREDICTED = "predicted"
_ORDER[PREDICTED] = _ORDER[ROUTINE]


@dataclass(frozen=True)
class BatchPage:
    """What the page needs besides the predictions.

    `thumbnail` gives the JPEG of an id, or None where there is none; `thumbnail_url` and `overlay_url` give
    the place of it and of an overlay (a prediction's `overlay`), relative to the page, with `/`. `halves`:
    thumbnails have the image left and the overlay right. `thresholds`: class name -> threshold. `policy`: the
    rules of triage in the order in which they apply. `facts`: shown as they are. `view_url` is the place of a
    larger picture of the image, empty where there is none. `lesions`: verdicts of the lesions by name, and
    `group_rule` how they were made, where photographs are grouped.
    """

    title: str
    classes: ClassList
    thumbnail: Callable[[str], bytes | None]
    thumbnail_url: Callable[[str], str]
    overlay_url: Callable[[str], str]
    halves: bool
    thresholds: Mapping[str, float]
    policy: Sequence[LevelRule]
    facts: Mapping[str, object]
    model_sha256: str
    view_url: Callable[[str], str] = lambda identity: ""
    lesions: Mapping[str, LesionVerdict] = field(default_factory=dict)
    group_rule: str = ""
    max_embedded: int = 300
    max_rows: int = 20_000


def severity(prediction: Prediction) -> tuple[int, float, float]:
    """Sorts the most urgent first: by triage level, then by malignant probability, then by uncertainty."""
    level = _level(prediction)
    if level == ERROR or prediction.probabilities is None:
        return _ORDER[level], 0.0, 0.0
    certainty = max(prediction.probabilities.values())
    return _ORDER[level], -(prediction.malignant_probability or 0.0), certainty


def _level(prediction: Prediction) -> str:
    if prediction.status == ERROR:
        return ERROR
    return prediction.triage or PREDICTED


def page(predictions: Iterable[Prediction], about: BatchPage) -> str:
    """The page as HTML. Memory grows with the predictions shown, not with those read."""
    levels: Counter[str] = Counter()
    decisions: Counter[str] = Counter()
    flagged = 0

    def counted() -> Iterable[tuple[tuple[int, float, float], int, Prediction]]:
        nonlocal flagged
        for number, prediction in enumerate(predictions):
            levels[_level(prediction)] += 1
            if prediction.decision:
                decisions[prediction.decision] += 1
            flagged += bool(prediction.flagged)
            yield severity(prediction), number, prediction

    known_levels = [*(LEVELS if about.classes.has_malignant else (PREDICTED,)), ERROR]
    worst = heapq.nsmallest(about.max_rows, counted(), key=lambda item: item[:2])
    total = sum(levels.values())
    shown = [_cells(one, about, embed=place < about.max_embedded) for place, (_, _, one) in enumerate(worst)]
    embedded = sum(1 for row in shown if row.get("thumb", "").startswith("data:"))
    lesions = _lesions(about.lesions, {row.get("lesion", "") for row in shown})
    data = {
        "rows": shown,
        "classes": list(about.classes.codes),
        "thresholds": dict(about.thresholds),
        "levels": known_levels,
        "triaged": about.classes.has_malignant,
        "halves": about.halves,
        "lesions": lesions,
        "similar": any("similar" in row for row in shown),
        "model": about.model_sha256,
        "title": about.title,
    }
    return render(
        "batch.html",
        about.classes,
        ("review_logic.js", "batch.js"),
        title=about.title,
        data=script_json(data),
        total=total,
        shown=len(shown),
        embedded=embedded,
        linked=sum(1 for row in shown if "thumb" in row) - embedded,
        levels=[(level, levels[level]) for level in known_levels],
        decisions=[(name, decisions[name]) for name in about.classes.codes],
        flagged=flagged,
        triaged=about.classes.has_malignant,
        triage_rules=about.policy,
        thresholds=about.thresholds,
        grouped=bool(lesions),
        group_rule=about.group_rule,
        facts=facts_table(about.facts),
    )


def _cells(prediction: Prediction, about: BatchPage, *, embed: bool) -> dict[str, Any]:
    """What the page shows of a prediction."""
    identity, failed = prediction.id, prediction.status == ERROR
    thumb = ""
    small = None if failed else about.thumbnail(identity)
    if small is not None:
        thumb = data_uri(small, "image/jpeg") if embed else about.thumbnail_url(identity)
    probabilities = prediction.probabilities or {}
    cells = {
        "id": identity,
        "level": _level(prediction),
        "error": prediction.error,
        "reason": prediction.triage_reason,
        "lesion": prediction.lesion,
        "p": [_rounded(probabilities.get(name)) for name in about.classes.codes] if probabilities else None,
        "malignant": _rounded(prediction.malignant_probability),
        "argmax": prediction.argmax,
        "decision": prediction.decision,
        "fired": prediction.threshold_fired,
        "set": list(prediction.conformal_set or ()),
        "similar": _similar(prediction),
        "quality": ", ".join(CHECK_WORDS.get(check, check) for check in prediction.quality or ()),
        "inTraining": IN_TRAINING if prediction.in_training else "",
        "mapFlags": _map_flags(prediction),
        "magnitude": _rounded(prediction.overlay_magnitude),
        "thumb": thumb,
        "view": "" if failed else about.view_url(identity),
        "overlay": about.overlay_url(prediction.overlay) if prediction.overlay else "",
    }
    # Twenty thousand rows of empty cells are megabytes.
    return {name: value for name, value in cells.items() if value not in (None, "", [])}


def _map_flags(prediction: Prediction) -> list[str]:
    """When not to trust the map."""
    if prediction.overlay_magnitude == 0:
        return ["the map is zero everywhere"]
    shares = {
        "the map lies mostly outside the lesion": prediction.overlay_outside_lesion,
        "the map lies mostly at the border": prediction.overlay_at_border,
    }
    return [words for words, share in shares.items() if share is not None and share > MOSTLY]


def _lesions(verdicts: Mapping[str, LesionVerdict], shown: set[str]) -> dict[str, dict[str, Any]]:
    """Rank, level and words of the lesions whose photographs are shown, the worst first."""
    worst_first = sorted((verdicts[name] for name in verdicts if name in shown), key=lesion_severity)
    return {
        verdict.lesion: {
            "rank": rank,
            "level": verdict.triage or (PREDICTED if verdict.decision else ERROR),
            "words": verdict.words,
        }
        for rank, verdict in enumerate(worst_first)
    }


def _similar(prediction: Prediction) -> list[str]:
    """The labels of similar cases in words, and a line for each case that is named."""
    if not prediction.similar:
        return []
    lines = [describe_similar(prediction.similar)]
    for case in prediction.similar["cases"]:
        lesion = f" {case['lesion_id']}" if case["lesion_id"] else ""
        lines.append(f"{case['label']}{lesion}, distance {case['distance']:.2f}")
    return lines


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 4)
