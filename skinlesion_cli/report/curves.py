"""The course of a training as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import cycle

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Colours that people with colour-blindness tell apart (Okabe and Ito, 2008), and a dash pattern for print.
_STYLES = (("#D55E00", "--"), ("#0072B2", "-."), ("#009E73", ":"), ("#CC79A7", "--"), ("#E69F00", "-."))
_SENSITIVITY = "sensitivity_"


def training_curves(history: Sequence[Mapping[str, float | None]], title: str) -> bytes:
    """Loss, validation figures and learning rate over the epochs, as a PNG.

    `history` has one row per epoch, with the columns of `history.csv`.
    """
    epochs = [row["epoch"] for row in history]

    def column(name: str) -> list[float]:
        values = (row[name] for row in history)
        return [float("nan") if value is None else value for value in values]

    figure = Figure(figsize=(11, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    marker = "o" if len(history) < 30 else None
    loss, quality, rate = figure.subplots(1, 3)
    loss.plot(epochs, column("train_loss"), color="#999999", marker=marker, ms=3, label="training")
    loss.plot(epochs, column("val_loss"), color="black", marker=marker, ms=3, label="validation")
    loss.set_ylabel("loss (training: smoothed and weighted)", fontsize=9)
    loss.set_ylim(bottom=0)
    quality.plot(epochs, column("val_bacc"), color="black", lw=2, marker=marker, ms=3, label="BACC")
    watched = [name for name in history[0] if name.startswith(_SENSITIVITY)]
    for name, (colour, dashes) in zip(watched, cycle(_STYLES), strict=False):
        label = f"{name.removeprefix(_SENSITIVITY)} sensitivity"
        quality.plot(epochs, column(name), dashes, color=colour, label=label)
    quality.set_ylabel("validation, single view", fontsize=9)
    quality.set_ylim(0, 1)
    rate.plot(epochs, column("learning_rate"), color="black", marker=marker, ms=3)
    rate.set_ylabel("learning rate at the end of the epoch", fontsize=9)
    rate.set_ylim(bottom=0)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    for axes in (loss, quality, rate):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    loss.legend(fontsize=8)
    quality.legend(fontsize=8, loc="lower right")
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
