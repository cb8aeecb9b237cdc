"""Which probability calibration makes probabilities mean what they say? A study on stored predictions.

    python examples/probability_study.py skinlesion_cli/bundled/ensemble/predictions-val.json

Every method is fitted on four fifths of the lesions and judged on the fifth that it did not see, five times
over. The calibrated probability of a class is compared with how often the class occurs: on average, by the
intercept and slope of its log odds, and bin by bin. What is printed is Markdown.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.decisions.calibration import METHODS
from skinlesion_cli.decisions.evaluation.calibration_figures import calibration_figures
from skinlesion_cli.decisions.probability_fit import fit
from skinlesion_cli.decisions.statistics.folds import grouped_folds
from skinlesion_cli.taxonomy import shipped

ISIC2018 = shipped("isic2018")


def study(labels: np.ndarray, probabilities: np.ndarray, lesion_ids: np.ndarray) -> dict[str, dict[str, Any]]:
    """Figures of every method, cross-fitted: `calibration_figures` by method."""
    folds = list(grouped_folds(labels, lesion_ids))
    figures = {}
    for method in METHODS:
        calibrated = np.empty((len(labels), probabilities.shape[1]), dtype=np.float32)
        for seen, held_out in folds:
            calibration = fit(labels[seen], probabilities[seen], method)
            calibrated[held_out] = calibration.apply(probabilities[held_out])
        figures[method] = calibration_figures(labels, calibrated, ISIC2018)
    return figures


def table(figures: dict[str, dict[str, Any]]) -> list[str]:
    """The study as lines of Markdown, the best log loss first."""
    lines = [
        "| method | log loss | Brier | class-wise error | top-class error | MEL: mean, intercept, slope "
        "| malignant: mean, intercept, slope |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, found in sorted(figures.items(), key=lambda item: item[1]["log_loss"]):
        judged = [
            f"{row['mean_predicted']:.3f}, {row['intercept']:+.2f}, {row['slope']:.2f}"
            for row in (found["by_class"][name] for name in ("MEL", "malignant"))
        ]
        lines.append(
            f"| {method} | {found['log_loss']:.4f} | {found['brier']:.4f} | {found['class_error']:.4f} "
            f"| {found['ece']:.4f} | {' | '.join(judged)} |"
        )
    observed = next(iter(figures.values()))["by_class"]
    shares = ", ".join(f"{name} {observed[name]['observed']:.3f}" for name in ("MEL", "malignant"))
    return [*lines, "", f"Observed shares: {shares}."]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("predictions", type=Path, help="stored predictions of images not trained on")
    found = Predictions.load(parser.parse_args().predictions)
    print("\n".join(table(study(found.labels, found.probabilities, found.lesion_ids))))


if __name__ == "__main__":
    main()
