"""Write MODEL_CARD.md: the figures of a packed model, from the predictions packed with it.

    python examples/model_card.py --model builtin --workspace runs/builtin --robustness robustness.json

Every figure is out of fold: an image is judged by the one network that did not train on its lesion,
thresholds by a calibration that did not see it. The workspace adds size, age, sex and site of the images;
`robustness.json` is written by `examples/robustness.py`. The words are in `model_card.md.j2`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from skinlesion_cli.artifacts.bundle import Bundle, resolve_model  # noqa: E402
from skinlesion_cli.artifacts.manifest import Manifest  # noqa: E402
from skinlesion_cli.artifacts.predictions import Predictions  # noqa: E402
from skinlesion_cli.artifacts.workspace import Workspace  # noqa: E402
from skinlesion_cli.data.subgroups import by_patient  # noqa: E402
from skinlesion_cli.decisions.evaluation.figures import Estimate, Figures, Labelled, evaluate  # noqa: E402
from skinlesion_cli.decisions.fit import cross_fit  # noqa: E402
from skinlesion_cli.decisions.settings import FitSettings, GuaranteeSettings, Target  # noqa: E402
from skinlesion_cli.decisions.statistics import metrics  # noqa: E402
from skinlesion_cli.decisions.triage_policy import triage_policy  # noqa: E402
from skinlesion_cli.taxonomy import shipped  # noqa: E402

ISIC2018 = shipped("isic2018")

# As `skinlesion evaluate` has them.
N_RESAMPLES = 2000


@dataclass(frozen=True)
class Judged:
    """Out-of-fold predictions and the decisions on them; all arrays in the order of `stored.table`."""

    stored: Predictions
    argmax: np.ndarray
    calibrated: np.ndarray
    decided: np.ndarray

    def figures(self, rows: np.ndarray | None = None, decided: np.ndarray | None = None) -> Figures:
        """Figures of these rows (default: all), of the argmax unless other decisions are given."""
        at = np.arange(len(self.argmax)) if rows is None else np.flatnonzero(rows)
        said = self.argmax if decided is None else decided
        t = self.stored
        return evaluate(
            Labelled(t.labels[at], t.probabilities[at], said[at], t.lesion_ids[at], ISIC2018),
            n_resamples=N_RESAMPLES,
            ranking=rows is None and decided is None,
        )


def judge(bundle: Bundle, stored: Predictions) -> Judged:
    """Argmax over all views, and decisions by cross-fitted thresholds of the bundle's own policy."""
    calibration = bundle.calibration
    settings = FitSettings(
        policy=calibration.policy,  # type: ignore[arg-type]
        targets=tuple(Target(**dict(target)) for target in calibration.targets) or None,
        guarantee=GuaranteeSettings(**calibration.guarantee_settings),
    )
    averaged = calibration.averaged(stored)
    unseen = cross_fit(stored.labels, averaged, stored.lesion_ids, settings, ISIC2018)
    return Judged(stored, metrics.scored_argmax(stored.probabilities), unseen.probabilities, unseen.decided)


def masks(workspace: Workspace, stored: Predictions) -> dict[str, np.ndarray]:
    """Subgroup -> bool (n_images,), from the manifest and the image files."""
    rows = Manifest.load(workspace.manifest).rows(stored.table["id"].tolist()).reset_index(drop=True)
    sizes = []
    for file in rows["file"]:
        with Image.open(workspace.images / file) as image:
            sizes.append("{} x {} px".format(*image.size))
    found = {f"size: {size}": np.array(sizes) == size for size in sorted(set(sizes))}
    return found | by_patient(rows)


def number(estimate: Estimate, sign: str = "") -> str:
    """Value and interval, or that it is undefined."""
    if np.isnan(estimate.value):
        return "undefined"
    return f"{estimate.value:{sign}.3f} ({estimate.low:{sign}.3f} to {estimate.high:{sign}.3f})"


def share(found: Mapping[str, Any]) -> str:
    """A share of lesions with its exact interval and its support."""
    if not found["n"]:
        return "undefined (0)"
    return f"{interval(found)[:-1]}; {found['hits']:.0f} of {found['n']:.0f})"


def interval(found: Mapping[str, Any]) -> str:
    """A value and its interval."""
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def context(bundle: Bundle, judged: Judged, groups: dict[str, np.ndarray], robustness: Any) -> dict[str, Any]:
    """All that the template shows."""
    stored, figures = judged.stored, judged.figures()
    counts = np.bincount(stored.labels, minlength=len(ISIC2018.codes))
    lesions = (
        pd.DataFrame({"label": stored.labels, "lesion": stored.lesion_ids})
        .groupby("label")["lesion"]
        .nunique()
    )
    single = metrics.scored_argmax(stored.view_probabilities[:, 0])
    calibration = bundle.calibration
    by_thresholds = judged.figures(decided=judged.decided)
    subgroups = []
    for name, mask in groups.items():
        if mask.any():
            found = judged.figures(mask)
            melanomas = int((stored.labels[mask] == ISIC2018.codes.index("MEL")).sum())
            present = int((np.bincount(stored.labels[mask], minlength=len(ISIC2018.codes)) > 0).sum())
            bacc = found.estimate("bacc")
            subgroups.append(
                (
                    name,
                    int(mask.sum()),
                    present,
                    number(bacc),
                    melanomas,
                    number(found.estimate("sensitivity/MEL")),
                )
            )
    return {
        "bundle": bundle,
        "recipe": bundle.members[0].recipe,
        "n_images": len(stored.table),
        "n_lesions": len(set(stored.lesion_ids)),
        "n_resamples": N_RESAMPLES,
        "bacc": number(figures.estimate("bacc")),
        "macro_auc": number(figures.estimate("macro_auc")),
        "malignant_auc": number(figures.estimate("malignant/auc")),
        "bacc_single": number(judged.figures(decided=single).estimate("bacc")),
        "bacc_decided": number(by_thresholds.estimate("bacc")),
        "sizes": [
            (n[6:], int(m.sum()), number(judged.figures(m).estimate("bacc")))
            for n, m in groups.items()
            if n.startswith("size: ")
        ],
        "classes": [
            (
                name,
                int(counts[i]),
                int(lesions.get(i, 0)),
                *(
                    number(figures.estimate(f"{kind}/{name}"))
                    for kind in ("sensitivity", "specificity", "ppv", "auc")
                ),
            )
            for i, name in enumerate(ISIC2018.codes)
        ],
        "guarantees": calibration.guarantees,
        "policy": triage_policy(calibration.rule, has_gate=bundle.gate is not None),
        "triage": calibration.triage_figures,
        "probabilities": calibration.probability_figures,
        "stopping": calibration.stopping,
        "tta_mode": calibration.tta_mode,
        "subgroups": subgroups,
        "robustness": robustness,
        "share": share,
        "interval": interval,
        "estimate": lambda triple, sign="": number(Estimate(*triple), sign),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--robustness", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=HERE.parent / "MODEL_CARD.md")
    options = parser.parse_args()
    packed = resolve_model(options.model)
    bundle = Bundle.load(packed)
    stored = Predictions.load(packed.ensemble_predictions("val"))
    robustness = json.loads(options.robustness.read_text(encoding="utf-8"))
    if robustness["model_sha256"] != bundle.sha256:
        parser.error(f"{options.robustness} was measured on another model")
    environment = Environment(
        loader=FileSystemLoader(HERE),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )  # Markdown, not HTML
    words = environment.get_template("model_card.md.j2")
    groups = masks(Workspace(options.workspace), stored)
    text = words.render(context(bundle, judge(bundle, stored), groups, robustness))
    options.output.write_text(text, encoding="utf-8")
    print(options.output)


if __name__ == "__main__":
    main()
