"""The page to review a batch: counts, a gallery sorted worst first, keyboard review, and its export."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from skinlesion_cli.decisions.triage import LEVELS, REFER, REVIEW, ROUTINE
from skinlesion_cli.report.page import data_uri, facts_table, render, script_json
from skinlesion_cli.taxonomy import CLASS_NAMES

ERROR = "error"
# Refer first; what nobody could look at comes before what needs no look.
_ORDER = {REFER: 0, REVIEW: 1, ERROR: 2, ROUTINE: 3}
Row = Mapping[str, Any]


@dataclass(frozen=True)
class BatchPage:
    """What the page needs besides the rows.

    `thumbnail` gives the JPEG of an id, or None where there is none; `thumbnail_url` and `overlay_url` the
    place of it and of an overlay (the row's `overlay`), relative to the page, with `/`. `halves`: thumbnails have
    the image left and the overlay right. `thresholds`: class name -> threshold. `facts`: shown as they are.
    """

    title: str
    thumbnail: Callable[[str], bytes | None]
    thumbnail_url: Callable[[str], str]
    overlay_url: Callable[[str], str]
    halves: bool
    thresholds: Mapping[str, float]
    facts: Mapping[str, object]
    model_sha256: str
    max_embedded: int = 300
    max_rows: int = 20_000


def severity(row: Row) -> tuple[int, float, float]:
    """Sorts worst first: by triage level, then by malignant probability, then by how unsure."""
    if row["status"] == ERROR:
        return _ORDER[ERROR], 0.0, 0.0
    top = max(row[f"p_{name}"] for name in CLASS_NAMES)
    return _ORDER[row["triage"]], -row["malignant_probability"], top


def page(rows: Iterable[Row], about: BatchPage) -> str:
    """The page as HTML. Memory grows with the rows shown, not with the rows read."""
    levels: Counter[str] = Counter()
    decisions: Counter[str] = Counter()
    flagged = 0

    def counted() -> Iterable[tuple[tuple[int, float, float], int, Row]]:
        nonlocal flagged
        for number, row in enumerate(rows):
            levels[ERROR if row["status"] == ERROR else row["triage"]] += 1
            if row["decision"]:
                decisions[row["decision"]] += 1
            flagged += bool(row["flagged"])
            yield severity(row), number, row

    worst = heapq.nsmallest(about.max_rows, counted(), key=lambda item: item[:2])
    total = sum(levels.values())
    shown = [_cells(row, about, embed=place < about.max_embedded) for place, (_, _, row) in enumerate(worst)]
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
        facts=facts_table(about.facts),
    )


def _cells(row: Row, about: BatchPage, *, embed: bool) -> dict[str, Any]:
    """What the page shows of a row."""
    identity = row["id"]
    thumb = ""
    small = about.thumbnail(identity) if row["status"] != ERROR else None
    if small is not None:
        thumb = data_uri(small, "image/jpeg") if embed else about.thumbnail_url(identity)
    return {
        "id": identity,
        "level": ERROR if row["status"] == ERROR else row["triage"],
        "error": row["error"],
        "p": [_rounded(row[f"p_{name}"]) for name in CLASS_NAMES],
        "malignant": _rounded(row["malignant_probability"]),
        "argmax": row["argmax"],
        "decision": row["decision"],
        "fired": row["threshold_fired"],
        "set": row["conformal_set"].split("|") if row["conformal_set"] else [],
        "quality": "" if row["quality"] == "ok" else row["quality"].replace("|", ", "),
        "flagged": bool(row["flagged"]),
        "zero": row["overlay_magnitude"] == 0,
        "magnitude": _rounded(row["overlay_magnitude"]),
        "thumb": thumb,
        "overlay": about.overlay_url(row["overlay"]) if row["overlay"] else "",
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 4)
