"""Curves with the operating points that decisions actually have: PNG bytes, drawn without a display."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from skinlesion_cli.report.plots_evaluation import class_style
from skinlesion_cli.taxonomy import ClassList

_INK, _GREY = "#30343b", "#9aa1ab"


def operating_points(
    labels: np.ndarray, probabilities: np.ndarray, decided: np.ndarray, classes: ClassList
) -> bytes:
    """ROC and precision-recall, each class against the rest; a hollow mark is where the decisions stand.

    Thresholds of other classes override a class too, so it may lie beside its curve.

    Parameters
    ----------
    labels, decided : int64 (n_images,). probabilities : (n_images, n_classes). Classes without images are
        left out.
    """
    figure = Figure(figsize=(10.4, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for index, name in enumerate(classes.codes):
        positive = labels == index
        if positive.all() or not positive.any():
            continue
        called = decided == index
        sensitivity = (called & positive).sum() / positive.sum()
        false, hits, _ = roc_curve(positive, probabilities[:, index], drop_intermediate=False)
        style = class_style(index, classes)
        # The ring of a class has the shape of its marks.
        ring = {"s": 60, "facecolor": "white", "edgecolor": style["color"], "linewidth": 1.8, "zorder": 3}
        ring["marker"] = style["marker"]
        left.plot(false, hits, label=f"{name} (n={int(positive.sum()):,})", **style)
        left.scatter((called & ~positive).sum() / (~positive).sum(), sensitivity, **ring)
        precision, recall, _ = precision_recall_curve(positive, probabilities[:, index])
        right.plot(recall, precision, **class_style(index, classes))
        if called.any():
            right.scatter(sensitivity, (called & positive).sum() / called.sum(), **ring)
    left.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, linestyle=":")
    left.legend(loc="lower right", fontsize=8, frameon=False)
    left.set(xlabel="1 - specificity", ylabel="sensitivity")
    right.set(xlabel="sensitivity (recall)", ylabel="positive predictive value (precision)")
    for axes, title in ((left, "ROC"), (right, "Precision and recall")):
        axes.set_title(f"{title}; hollow marks: the decisions", loc="left", color=_INK, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120, metadata={"Software": None})
    return content.getvalue()
