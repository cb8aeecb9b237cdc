"""The picture of a dataset: how many images of each class lie in each part."""

from __future__ import annotations

import io
from collections.abc import Mapping

from matplotlib.figure import Figure

from skinlesion_cli.taxonomy import ClassList

_DPI = 130
_INK, _PALE = "#30343b", "#9aa1ab"
_COLOURS = {"train": "#2f6fab", "val": "#c8641e", "test": "#5b8c5a"}
_TITLES = {"train": "training", "val": "validation", "test": "test"}


def class_distribution(counts: Mapping[str, Mapping[str, int]], title: str, classes: ClassList) -> bytes:
    """Bars on a logarithmic scale, so that a class with 100 images shows beside one with 7,000.

    Parameters
    ----------
    counts : part -> class -> images; parts without images are left out.

    Returns
    -------
    A PNG file.
    """
    parts = [part for part in _COLOURS if sum(counts.get(part, {}).values())]
    figure = Figure(figsize=(7.6, max(4.6, 0.6 * classes.n_classes)))
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", color=_INK, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    thickness = 0.8 / max(len(parts), 1)
    most = max([count for part in parts for count in counts[part].values()], default=1)
    for position, part in enumerate(parts):
        values = [counts[part][name] for name in classes.codes]
        heights = [
            index + (position - (len(parts) - 1) / 2) * thickness for index in range(classes.n_classes)
        ]
        total = f"{_TITLES[part]} ({sum(values):,})"
        axes.barh(heights, values, thickness * 0.92, color=_COLOURS[part], label=total)
        for height, value in zip(heights, values, strict=True):
            axes.text(max(value, 1) * 1.06, height, f"{value:,}", va="center", fontsize=7, color=_INK)
    names = [
        f"{entry.title}\n{entry.code}{', malignant' if entry.malignant else ''}" for entry in classes.entries
    ]
    names = [name.replace(" / ", " /\n") for name in names]
    axes.set_yticks(range(classes.n_classes), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(1, most * 2)
    axes.set_xlabel("images (logarithmic scale)", fontsize=8, color=_INK)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", color=_PALE, alpha=0.3)
    axes.set_axisbelow(True)
    if parts:
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    buffer = io.BytesIO()
    # No software version inside: the same dataset makes the same file.
    figure.savefig(buffer, format="png", dpi=_DPI, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()
