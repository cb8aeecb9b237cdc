"""How much review a larger share of malignant images among the routine ones saves, and whom it costs.

    python examples/triage_study.py builtin --workspace runs/builtin

Triage is fitted again and again on the predictions that are packed with a model, each time with another
`--routine-risk` and all else as the model has it. Every image is judged by levels that were fitted without
its lesion, as `skinlesion calibrate` judges itself. With `--workspace` the images are judged by their source.
What is printed is Markdown; intervals are 95 %, over lesions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from skinlesion_cli.artifacts.bundle import Bundle, resolve_model
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.decisions.evaluation.triage_figures import triage_figures
from skinlesion_cli.decisions.fit import cross_fit
from skinlesion_cli.decisions.settings import FitSettings, GuaranteeSettings, Target
from skinlesion_cli.taxonomy import ClassList

RISKS = (0.005, 0.01, 0.015, 0.02)


def study(
    labels: np.ndarray,
    probabilities: np.ndarray,
    lesion_ids: np.ndarray,
    settings: FitSettings,
    classes: ClassList,
    risks: Sequence[float] = RISKS,
    sources: np.ndarray | None = None,
) -> dict[tuple[float, str], dict]:
    """`triage_figures` by risk and source; without sources all images are `all`."""
    sources = np.full(len(labels), "all") if sources is None else sources
    malignant = probabilities[:, classes.is_malignant].sum(axis=1)
    found = {}
    for risk in risks:
        fitted = replace(settings, triage=replace(settings.triage, routine_risk=risk))
        levels = cross_fit(labels, probabilities, lesion_ids, fitted, classes).triage
        if levels is None:
            raise SystemExit("a class list without malignant classes has no triage")
        for source in np.unique(sources):
            rows = sources == source
            found[risk, str(source)] = triage_figures(
                labels[rows], malignant[rows], levels[rows], lesion_ids[rows], classes
            )
    return found


def table(found: Mapping[tuple[float, str], dict]) -> list[str]:
    """The study as lines of Markdown."""
    lines = [
        "| `--routine-risk` | images | refer | review | routine | malignant, of the routine images "
        "| in routine, of the malignant images |",
        "|---|---|---|---|---|---|---|",
    ]
    for (risk, source), figures in found.items():
        levels = figures["levels"]
        shares = [f"{levels[name]['share']['value']:.2f}" for name in ("refer", "review", "routine")]
        routine = levels["routine"]
        cells = [f"{risk:g}", source, *shares, _cell(routine["risk"]), _cell(routine["share_of_malignant"])]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _cell(interval: Mapping[str, float]) -> str:
    value, low, high = interval["value"], interval["low"], interval["high"]
    return "undefined" if np.isnan(value) else f"{value:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="packed with its predictions (`pack --with-predictions`)")
    parser.add_argument("--workspace", type=Path, help="whose dataset knows the source of every image")
    parser.add_argument("--risks", type=float, nargs="+", default=RISKS)
    options = parser.parse_args()
    packed = resolve_model(options.model)
    calibration = Bundle.load(packed).calibration
    stored = Predictions.load(packed.ensemble_predictions("val"))
    settings = FitSettings(
        policy=calibration.policy,
        targets=tuple(Target(**dict(target)) for target in calibration.targets) or None,
        guarantee=GuaranteeSettings(**calibration.guarantee_settings),
    )
    sources = None
    if options.workspace:
        manifest = Manifest.load(Workspace(options.workspace).manifest)
        sources = manifest.rows(stored.table["id"].tolist())["source"].to_numpy(dtype=str)
    found = study(
        *(stored.labels, calibration.averaged(stored), stored.lesion_ids, settings, calibration.classes),
        risks=options.risks,
        sources=sources,
    )
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
