"""Pictures of an evaluation: PNG bytes, drawn without a display and without global state."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from skinlesion_cli.decisions.evaluation.figures import Estimate, Figures, Labelled
from skinlesion_cli.decisions.evaluation.sums import NET_BENEFIT_THRESHOLDS
from skinlesion_cli.decisions.probability_fit import ECE_BINS
from skinlesion_cli.decisions.statistics import metrics
from skinlesion_cli.taxonomy import ClassList

_DPI = 130
_INK = "#30343b"
_BLUE, _ORANGE, _GREY = "#2f6fab", "#c8641e", "#9aa1ab"
# Curves are told apart by dashes and marks too, without colour.
_DASHES = ("-", "--", "-.", (0, (1, 1.5)), (0, (6, 1, 1, 1, 1, 1)), (0, (8, 3)), (0, (3, 3)))
_MARKS = ("o", "s", "^", "D", "v", "P", "X")


def class_style(index: int, classes: ClassList) -> dict[str, Any]:
    """How the curve of a class is drawn: colour, dashes, and marks at equal distances along it."""
    return {
        "color": classes.entries[index].colour,
        "linestyle": _DASHES[index % len(_DASHES)],
        "linewidth": 1.4,
        "marker": _MARKS[index % len(_MARKS)],
        "markersize": 4.5,
        # Shares of the picture. Each class begins elsewhere, so that marks of curves that meet lie apart.
        "markevery": (0.02 * (index % len(_MARKS)), 0.15),
    }


def draw(data: Labelled, figures: Figures, targets: Mapping[str, float]) -> dict[str, bytes]:
    """All pictures of an evaluation: file name -> PNG. `targets`: class name -> wanted sensitivity."""
    classes = data.classes
    matrix = metrics.confusion_matrix(data.labels, data.decided, classes.n_classes)
    grid = NET_BENEFIT_THRESHOLDS
    curve = [figures.estimate(f"net_benefit/{t:.2f}") for t in grid]
    everyone = [figures.values[f"net_benefit_all/{t:.2f}"] for t in grid]
    areas = {name: shown(figures.estimate(f"auc/{name}")) for name in classes.codes}
    by_class = {name: figures.estimate(f"sensitivity/{name}") for name in classes.codes}
    ece = shown(figures.estimate("ece"))
    pictures = {
        "confusion.png": confusion(matrix, classes),
        "roc.png": roc(data.labels, data.probabilities, areas, classes),
        "calibration.png": reliability(data.labels, data.probabilities, f"ECE {ece}"),
    }
    if classes.has_malignant:
        model = np.array([[each.value, each.low, each.high] for each in curve])
        pictures["net-benefit.png"] = net_benefit(grid, model, everyone)
    pictures["sensitivity.png"] = sensitivities(by_class, matrix.sum(axis=1), targets)
    return pictures


def shown(estimate: Estimate) -> str:
    """An estimate as text for a legend."""
    if np.isnan(estimate.value):
        return "undefined"
    if np.isnan(estimate.low):
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # No software version inside: the same figures make the same file.
    figure.savefig(buffer, format="png", dpi=_DPI, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


def _axes(width: float, height: float, title: str) -> tuple[Any, Any]:
    figure = Figure(figsize=(width, height))
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", color=_INK, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _matrix_inches(n_classes: int) -> tuple[float, float]:
    """Wide enough for the counts of many classes."""
    return max(5.6, 0.7 * n_classes), max(4.8, 0.5 * n_classes)


def confusion(matrix: np.ndarray, classes: ClassList) -> bytes:
    """Counts, shaded by share of the true class; `matrix` (n_classes, n_classes + 1), the last column
    "none".
    """
    shown = matrix if matrix[:, -1].any() else matrix[:, :-1]
    columns = [*classes.codes, "none"][: shown.shape[1]]
    support = matrix.sum(axis=1, keepdims=True)
    share = np.divide(shown, support, out=np.zeros(shown.shape), where=support > 0)
    figure, axes = _axes(
        *_matrix_inches(classes.n_classes), "Decisions (columns) of each true class (rows): images"
    )
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row in range(shown.shape[0]):
        for column in range(shown.shape[1]):
            colour = "white" if share[row, column] > 0.55 else _INK
            text = f"{shown[row, column]:,}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    labels = [f"{name}  n={int(n):,}" for name, n in zip(classes.codes, support[:, 0], strict=True)]
    axes.set_xticks(range(len(columns)), columns, fontsize=8)
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return _png(figure)


def roc(labels: np.ndarray, probabilities: np.ndarray, areas: Mapping[str, str], classes: ClassList) -> bytes:
    """One curve per class that has images on both sides; `areas` are the texts beside the names."""
    figure, axes = _axes(5.2, 4.8, "ROC, each class against the rest")
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, linestyle=":")
    for index, name in enumerate(classes.codes):
        positive = labels == index
        if positive.all() or not positive.any():
            continue
        order = np.argsort(-probabilities[:, index], kind="stable")
        score = probabilities[order, index]
        ends = np.flatnonzero(np.r_[score[1:] != score[:-1], True])
        hits = np.cumsum(positive[order])[ends] / positive.sum()
        false = np.cumsum(~positive[order])[ends] / (~positive).sum()
        axes.plot(
            np.r_[0, false],
            np.r_[0, hits],
            label=f"{name}  {areas.get(name, '')}",
            **class_style(index, classes),
        )
    axes.set_xlabel("1 - specificity")
    axes.set_ylabel("sensitivity")
    if len(axes.lines) > 1:  # of a single class no curve can be drawn, and there is nothing to explain
        axes.legend(loc="lower right", fontsize=8, frameon=False, title="AUC (95 %)", title_fontsize=8)
    return _png(figure)


def reliability(labels: np.ndarray, probabilities: np.ndarray, caption: str, n_bins: int = ECE_BINS) -> bytes:
    """Accuracy against confidence of the top class; the size of a point is the number of images."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    counts = np.bincount(bins, minlength=n_bins)
    filled = counts > 0
    accuracy = np.bincount(bins, weights=right, minlength=n_bins)[filled] / counts[filled]
    mean = np.bincount(bins, weights=confidence, minlength=n_bins)[filled] / counts[filled]
    figure, axes = _axes(4.8, 4.6, f"Calibration of the top class: {caption}")
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, linestyle=":")
    axes.plot(mean, accuracy, color=_BLUE, linewidth=1.0)
    axes.scatter(
        mean, accuracy, s=12 + 220 * counts[filled] / counts.max(), color=_BLUE, alpha=0.55, linewidth=0
    )
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    return _png(figure)


def net_benefit(thresholds: Sequence[float], model: np.ndarray, everyone: Sequence[float]) -> bytes:
    """Decision curve of the malignant probability; `model` (n_thresholds, 3) is value, low, high."""
    figure, axes = _axes(5.4, 4.0, "Net benefit of referring by malignant probability")
    axes.fill_between(thresholds, model[:, 1], model[:, 2], color=_BLUE, alpha=0.18, linewidth=0)
    axes.plot(thresholds, model[:, 0], color=_BLUE, label="model (95 %)")
    axes.plot(thresholds, everyone, color=_ORANGE, linewidth=1.2, linestyle="--", label="refer everyone")
    axes.axhline(0, color=_GREY, linewidth=1.2, linestyle=":", label="refer no one")
    # Referring everyone falls without end; the model's own curve sets the scale.
    seen = model[np.isfinite(model)]
    axes.set_ylim(min(0.0, seen.min(initial=0.0)) - 0.02, seen.max(initial=0.0) * 1.15 + 0.01)
    axes.set_xlabel("probability of malignancy at which a referral is worth it")
    axes.set_ylabel("net benefit")
    axes.legend(fontsize=8, frameon=False)
    return _png(figure)


def sensitivities(rows: Mapping[str, Estimate], support: np.ndarray, targets: Mapping[str, float]) -> bytes:
    """Sensitivity by class with its interval, and a mark where a target is; `support` in images."""
    figure, axes = _axes(
        5.6, max(3.4, 0.3 * len(rows)), "Image sensitivity of the decision (95 % by lesion); bars: targets"
    )
    names = list(rows)[::-1]
    for y, name in enumerate(names):
        estimate = rows[name]
        if np.isnan(estimate.value):
            axes.text(0.01, y, "undefined: no images", va="center", fontsize=8, color=_GREY)
            continue
        axes.plot([estimate.low, estimate.high], [y, y], color=_BLUE, linewidth=2.0, alpha=0.6)
        axes.plot(estimate.value, y, "o", color=_BLUE, markersize=5)
        if name in targets:
            axes.plot(targets[name], y, "|", color=_ORANGE, markersize=16, markeredgewidth=2)
    labels = [f"{name}  n={int(n):,}" for name, n in zip(names, support[::-1], strict=True)]
    axes.set_yticks(range(len(names)), labels, fontsize=8)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlim(0, 1.01)
    axes.grid(axis="x", color="#e6e8eb", linewidth=0.6)
    axes.set_axisbelow(True)
    return _png(figure)
