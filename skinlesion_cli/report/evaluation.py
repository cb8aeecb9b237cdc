"""The page of an evaluation: figures with intervals, pictures, targets, subgroups, worst errors,
model facts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from skinlesion_cli.report.evaluation_tables import per_thousand
from skinlesion_cli.report.page import data_uri, facts_table, render
from skinlesion_cli.taxonomy import ClassList

# What each picture shows, in the order of the page; a picture that is not there is left out.
PICTURES: Mapping[str, str] = {
    "operating-points.png": "Each class against the rest, by images. Hollow marks: the decisions.",
    "sensitivity.png": "Image sensitivity by class, 95 % interval by lesion; orange bars are targets.",
    "calibration.png": "Reliability: how often the top class is right, by its probability.",
    "net-benefit.png": "Decision curve: worth of referring by the malignant probability, against referring "
    "everyone and no one.",
}
_HEADLINE = (
    ("bacc", "balanced accuracy"),
    ("malignant_bacc", "malignant BACC (mean image sensitivity of {malignant})"),
    ("macro_auc", "mean AUC of the classes"),
    ("malignant/auc", "malignant or not: AUC"),
    ("malignant/sensitivity", "malignant or not: image sensitivity"),
    ("malignant/specificity", "malignant or not: image specificity"),
    ("accuracy", "accuracy"),
    ("ece", "expected calibration error"),
    ("brier", "Brier score"),
    ("log_loss", "log loss"),
)
# Figure -> its name on the page, which says what is counted where it could be images or lesions.
_BY_CLASS: Mapping[str, str] = {
    "sensitivity": "image sensitivity",
    "specificity": "image specificity",
    "ppv": "image PPV",
    "npv": "image NPV",
    "auc": "AUC",
    "ap": "average precision",
}
# Of fewer than this many, a rate says next to nothing, and its bootstrap interval is too narrow.
FEWEST = 10
TOO_FEW = "too few to say"


@dataclass(frozen=True)
class Mistake:
    """One wrong decision. `picture` is a JPEG: the image, its map of the decided class,
    that of the true one.
    """

    id: str
    label: str
    decided: str
    p_label: float
    p_decided: float
    picture: bytes | None


def worst(
    labels: np.ndarray, decided: np.ndarray, probabilities: np.ndarray, n: int, classes: ClassList
) -> list[int]:
    """Rows of the worst errors: malignant called benign first, then by how improbable the truth was called.

    Parameters
    ----------
    labels, decided : int64 (n_images,); probabilities : (n_images, n_classes).
    """
    wrong = np.flatnonzero(labels != decided)
    known = np.where(decided[wrong] < classes.n_classes, decided[wrong], labels[wrong])
    missed = classes.is_malignant[labels[wrong]] & ~classes.is_malignant[known]
    order = np.lexsort((probabilities[wrong, labels[wrong]], ~missed))
    result: list[int] = wrong[order][:n].tolist()
    return result


def page(
    body: Mapping[str, Any],
    classes: ClassList,
    pictures: Mapping[str, bytes],
    mistakes: Sequence[Mistake],
    n_mistakes: int,
    facts: Mapping[str, object],
    hashes: Mapping[str, object],
) -> str:
    """The page as HTML. `body` is an evaluation's over `classes`, NaN already None; `facts` are the model
    card's.
    """
    figures = body["figures"]
    support = body["support"]
    headline_counts = _headline_counts(body["confusion_matrix"], classes)
    return render(
        "evaluation.html",
        classes,
        body=body,
        per_thousand=per_thousand(body),
        headline=[
            (
                title.format(malignant=", ".join(classes.malignant_codes)),
                counted(figures[name], headline_counts.get(name), support["lesions"]),
            )
            for name, title in _HEADLINE
            if name in figures and (classes.has_malignant or "malignant" not in name)
        ],
        levels=(body.get("triage_figures") or {}).get("levels"),
        few=few_words(support["lesions_by_class"]),
        columns=list(_BY_CLASS.values()),
        by_class=[
            (
                name,
                support["images_by_class"][name],
                support["lesions_by_class"][name],
                _cells(body, name, classes),
            )
            for name in classes.codes
        ],
        matrix=_matrix(body["confusion_matrix"], classes),
        guarantees=[("target", *_target_met(v)) for v in body["targets"]]
        + [("guarantee of the calibration", *_target_met(v)) for v in body["guarantees"]],
        subgroups=[
            (
                name,
                group,
                [
                    counted(group[figure], None, group["lesions"])
                    for figure in ("bacc", "malignant_sensitivity", "malignant_specificity")
                ],
            )
            for name, group in body["subgroups"].items()
            if group["images"]
        ],
        empty_subgroups=[name for name, group in body["subgroups"].items() if not group["images"]],
        pictures=[
            (data_uri(pictures[name], "image/png"), caption)
            for name, caption in PICTURES.items()
            if name in pictures
        ],
        mistakes=[(m, data_uri(m.picture, "image/jpeg") if m.picture else "") for m in mistakes],
        n_mistakes=n_mistakes,
        facts=facts_table(facts),
        hashes=facts_table(hashes),
    )


def estimate(value: Mapping[str, Any] | None) -> str:
    """An estimate with its interval; undefined is said to be undefined."""
    if value is None or value["value"] is None:
        return "undefined"
    if value.get("low") is None or value.get("high") is None:
        return f"{value['value']:.3f}"
    return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"


# Hits and out of how many.
Count = tuple[int, int]


def counted(value: Mapping[str, Any] | None, count: Count | None, independent: int) -> str:
    """A rate with its interval and what was counted; of fewer than ten, the count alone.

    `independent` is how many lesions it rests on.
    """
    said = "" if count is None else f"{count[0]:,} of {count[1]:,}"
    if value is None or value["value"] is None:
        return "undefined"
    if independent < FEWEST or (count is not None and count[1] < FEWEST):
        return f"{TOO_FEW} ({said})" if said else TOO_FEW
    return f"{estimate(value)}, {said}" if said else estimate(value)


def few_words(lesions_by_class: Mapping[str, int]) -> str:
    """The classes with few lesions, which means over classes rest on; empty where there are none."""
    few = [f"{name} ({n})" for name, n in lesions_by_class.items() if 0 < n < FEWEST]
    if not few:
        return ""
    return f"Means over classes rest on classes with fewer than {FEWEST} lesions: {', '.join(few)}."


def class_counts(matrix: Sequence[Sequence[int]], name: str, classes: ClassList) -> dict[str, Count]:
    """Images behind the rates of a class against the rest; `matrix` (n_classes, n_classes + 1), rows true,
    columns decided.
    """
    table = np.asarray(matrix)
    index, n = classes.index[name], int(table.sum())
    hits, support, called = (int(x) for x in (table[index, index], table[index].sum(), table[:, index].sum()))
    cleared = n - support - called + hits
    return {
        "sensitivity": (hits, support),
        "specificity": (cleared, n - support),
        "ppv": (hits, called),
        "npv": (cleared, n - called),
    }


def _cells(body: Mapping[str, Any], name: str, classes: ClassList) -> list[str]:
    """The figures of a class, each with how many lesions it rests on: its own, the others, or all."""
    counts = class_counts(body["confusion_matrix"], name, classes)
    own = body["support"]["lesions_by_class"][name]
    others = sum(body["support"]["lesions_by_class"].values()) - own
    independent = {"specificity": others, "ppv": own + others, "npv": own + others}
    return [
        counted(body["figures"].get(f"{figure}/{name}"), counts.get(figure), independent.get(figure, own))
        for figure in _BY_CLASS
    ]


def _headline_counts(matrix: Sequence[Sequence[int]], classes: ClassList) -> dict[str, Count]:
    table = np.asarray(matrix)
    of_malignant = np.r_[classes.is_malignant, [False] * (table.shape[1] - classes.n_classes)]
    inside, outside = table[classes.is_malignant], table[~classes.is_malignant]
    return {
        "accuracy": (int(np.trace(table[:, : classes.n_classes])), int(table.sum())),
        "malignant/sensitivity": (int(inside[:, of_malignant].sum()), int(inside.sum())),
        "malignant/specificity": (int(outside[:, ~of_malignant].sum()), int(outside.sum())),
    }


def _share(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "undefined"
    return counted(value, (value["hits"], value["n"]), value["n"])


def _target_met(target: Mapping[str, Any]) -> tuple[str, str, str, str, bool | None]:
    wanted = f"sensitivity {target['target_sensitivity']:.3f}"
    if target["target_specificity"] is not None:
        wanted += f", specificity {target['target_specificity']:.3f}"
    return (
        target["class_name"],
        wanted,
        _share(target["sensitivity"]),
        _share(target["specificity"]),
        target["met"],
    )


def _matrix(matrix: Sequence[Sequence[int]], classes: ClassList) -> list[tuple[str, list[tuple[int, float]]]]:
    """Rows with each cell's count and its share of the true class."""
    drop = not any(row[-1] for row in matrix) and len(matrix[0]) > classes.n_classes
    rows = []
    for name, row in zip(classes.codes, matrix, strict=True):
        cells = list(row[:-1] if drop else row)
        total = sum(row)
        rows.append((name, [(count, count / total if total else 0.0) for count in cells]))
    return rows
