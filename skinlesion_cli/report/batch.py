"""The page to review a batch: counts, a gallery with the most urgent first, keyboard review,
and its export.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skinlesion_cli.decisions.triage import LEVELS, REFER, REVIEW, ROUTINE
from skinlesion_cli.decisions.triage_policy import LevelRule
from skinlesion_cli.inference.prediction import ERROR, Prediction
from skinlesion_cli.inference.similar import describe_similar
from skinlesion_cli.report.page import data_uri, facts_table, render, script_json
from skinlesion_cli.taxonomy import CLASS_NAMES

# Refer first; images that could not be read come before those that need no review.
_ORDER = {REFER: 0, REVIEW: 1, ERROR: 2, ROUTINE: 3}


@dataclass(frozen=True)
class BatchPage:
    """What the page needs besides the predictions.

    `thumbnail` gives the JPEG of an id, or None where there is none; `thumbnail_url` and `overlay_url` give
    the place of it and of an overlay (a prediction's `overlay`), relative to the page, with `/`. `halves`:
    thumbnails have the image left and the overlay right. `thresholds`: class name -> threshold. `policy`: the
    rules of triage in the order in which they apply. `facts`: shown as they are.
    """

    title: str
    thumbnail: Callable[[str], bytes | None]
    thumbnail_url: Callable[[str], str]
    overlay_url: Callable[[str], str]
    halves: bool
    thresholds: Mapping[str, float]
    policy: Sequence[LevelRule]
    facts: Mapping[str, object]
    model_sha256: str
    max_embedded: int = 300
    max_rows: int = 20_000


def severity(prediction: Prediction) -> tuple[int, float, float]:
    """Sorts the most urgent first: by triage level, then by malignant probability, then by uncertainty."""
    level = _level(prediction)
    if level == ERROR or prediction.probabilities is None or prediction.malignant_probability is None:
        return _ORDER[level], 0.0, 0.0
    return _ORDER[level], -prediction.malignant_probability, max(prediction.probabilities.values())


def _level(prediction: Prediction) -> str:
    return prediction.triage or ERROR


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

    worst = heapq.nsmallest(about.max_rows, counted(), key=lambda item: item[:2])
    total = sum(levels.values())
    shown = [_cells(one, about, embed=place < about.max_embedded) for place, (_, _, one) in enumerate(worst)]
    embedded = sum(1 for row in shown if row["thumb"].startswith("data:"))
    data = {
        "rows": shown,
        "classes": list(CLASS_NAMES),
        "thresholds": dict(about.thresholds),
        "levels": [*LEVELS, ERROR],
        "halves": about.halves,
        "model": about.model_sha256,
        "title": about.title,
    }
    return render(
        "batch.html",
        "batch.js",
        title=about.title,
        data=script_json(data),
        total=total,
        shown=len(shown),
        embedded=embedded,
        linked=sum(1 for row in shown if row["thumb"] and not row["thumb"].startswith("data:")),
        levels=[(level, levels[level]) for level in (*LEVELS, ERROR)],
        decisions=[(name, decisions[name]) for name in CLASS_NAMES],
        flagged=flagged,
        triage_rules=about.policy,
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
    return {
        "id": identity,
        "level": _level(prediction),
        "error": prediction.error or "",
        "reason": prediction.triage_reason or "",
        "p": [_rounded(probabilities.get(name)) for name in CLASS_NAMES],
        "malignant": _rounded(prediction.malignant_probability),
        "argmax": prediction.argmax or "",
        "decision": prediction.decision or "",
        "fired": prediction.threshold_fired or "",
        "set": list(prediction.conformal_set or ()),
        "similar": _similar(prediction),
        "quality": ", ".join(prediction.quality or ()),
        "flagged": bool(prediction.flagged),
        "zero": prediction.overlay_magnitude == 0,
        "magnitude": _rounded(prediction.overlay_magnitude),
        "thumb": thumb,
        "overlay": about.overlay_url(prediction.overlay) if prediction.overlay else "",
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
