"""Write MODEL_CARD.md: the figures of a packed model, from the predictions packed with it.

    python examples/model_card.py --workspace runs/builtin --robustness robustness.json --masks MASKS

Every figure is out of fold: an image is judged by the one network that did not train on its lesion,
thresholds by a calibration that did not see it. The workspace adds source, age, sex and site of the images
and their files, from which the quality gate's statistics of sharpness, hair and ink come; MASKS holds
outlines of lesions, `<image id>_segmentation.png`, as far as there are any. `robustness.json` is written by
`examples/robustness.py`. The words are in `model_card.md.j2`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from joblib import Parallel, delayed
from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from robustness import networks_of  # noqa: E402

from skinlesion_cli.artifacts.bundle import Bundle, resolve_model  # noqa: E402
from skinlesion_cli.artifacts.manifest import Manifest  # noqa: E402
from skinlesion_cli.artifacts.predictions import Predictions  # noqa: E402
from skinlesion_cli.artifacts.quality_gate import StoredQualityGate  # noqa: E402
from skinlesion_cli.artifacts.workspace import Workspace  # noqa: E402
from skinlesion_cli.data.quality import statistics  # noqa: E402
from skinlesion_cli.data.reading.images import read_image  # noqa: E402
from skinlesion_cli.data.subgroups import by_patient  # noqa: E402
from skinlesion_cli.decisions.evaluation.figures import Estimate, Figures, Labelled, evaluate  # noqa: E402
from skinlesion_cli.decisions.evaluation.targets_met import lesion_share  # noqa: E402
from skinlesion_cli.decisions.fit import CrossFitted, cross_fit  # noqa: E402
from skinlesion_cli.decisions.levels import LEVELS  # noqa: E402
from skinlesion_cli.decisions.settings import FitSettings, GuaranteeSettings, Target  # noqa: E402
from skinlesion_cli.decisions.statistics import metrics  # noqa: E402
from skinlesion_cli.decisions.triage_policy import triage_policy  # noqa: E402
from skinlesion_cli.taxonomy import shipped  # noqa: E402

ISIC2018 = shipped("isic2018")

# As `skinlesion evaluate` has them.
N_RESAMPLES = 2000
_LESION_SIZES = ((0.0, 0.15, "under 15 %"), (0.15, 0.4, "15 to 40 %"), (0.4, 1.01, "40 % and more"))


@dataclass(frozen=True)
class Judged:
    """Out-of-fold predictions and the decisions on them; all arrays in the order of `stored.table`."""

    stored: Predictions
    argmax: np.ndarray
    unseen: CrossFitted

    @property
    def decided(self) -> np.ndarray:
        return self.unseen.decided

    def figures(
        self,
        rows: np.ndarray | None = None,
        decided: np.ndarray | None = None,
        *,
        ranking: bool | None = None,
        calibrated: bool = False,
    ) -> Figures:
        """Figures of these rows (default: all), of the argmax unless other decisions are given, and of the
        networks' own probabilities or the cross-fitted calibrated ones."""
        at = np.arange(len(self.argmax)) if rows is None else np.flatnonzero(rows)
        said = self.argmax if decided is None else decided
        t = self.stored
        return evaluate(
            Labelled(
                t.labels[at],
                (self.unseen.probabilities if calibrated else t.probabilities)[at],
                said[at],
                t.lesion_ids[at],
                ISIC2018,
            ),
            n_resamples=N_RESAMPLES,
            ranking=(rows is None and decided is None) if ranking is None else ranking,
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
    return Judged(stored, metrics.scored_argmax(stored.probabilities), unseen)


def groups_of(workspace: Workspace, stored: Predictions, outlines: Path | None) -> dict[str, np.ndarray]:
    """Subgroup -> bool (n_images,), from the manifest, the image files and the outlines of lesions."""
    rows = Manifest.load(workspace.manifest).rows(stored.table["id"].tolist()).reset_index(drop=True)
    measured = pd.DataFrame(
        Parallel(n_jobs=-1, batch_size=64)(delayed(_statistics)(workspace.images / f) for f in rows["file"])
    )
    sharp = measured["log_sharpness"].rank(pct=True).to_numpy()
    groups = {
        "sharpness: lowest third": sharp <= 1 / 3,
        "sharpness: middle third": (sharp > 1 / 3) & (sharp <= 2 / 3),
        "sharpness: highest third": sharp > 2 / 3,
        "hair: tenth with most": measured["hair_share"].rank(pct=True).to_numpy() > 0.9,
        "ink or stickers: tenth with most": measured["marker_share"].rank(pct=True).to_numpy() > 0.9,
    }
    if outlines is not None:
        area = np.array([_lesion_share(outlines, identity) for identity in stored.table["id"]])
        groups |= {
            f"lesion: {name} of the field": (area >= low) & (area < high) for low, high, name in _LESION_SIZES
        }
    return by_patient(rows) | groups


def _statistics(path: Path) -> dict[str, float]:
    return statistics(read_image(path.read_bytes()))


def _lesion_share(outlines: Path, identity: str) -> float:
    """Share of the image inside the outline; NaN where there is none."""
    path = outlines / f"{identity}_segmentation.png"
    if not path.exists():
        return float("nan")
    with Image.open(path) as image:
        return float((np.asarray(image.convert("L")) > 127).mean())


def source_rows(judged: Judged, groups: Mapping[str, np.ndarray]) -> list[dict[str, str]]:
    """What is said of the images of each source, in words of the table."""
    stored, unseen = judged.stored, judged.unseen
    melanoma = ISIC2018.codes.index("MEL")
    malignant = ISIC2018.is_malignant[stored.labels]
    assert unseen.triage is not None
    rows = []
    for name, mask in groups.items():
        if not name.startswith("source: "):
            continue
        figures = judged.figures(mask, ranking=True)
        lesions, fires = np.unique(stored.lesion_ids, return_inverse=True)[1], unseen.alarms["MEL"]
        has_it, lacks_it = mask & (stored.labels == melanoma), mask & (stored.labels != melanoma)
        levels = unseen.triage[mask]
        routine = mask & malignant
        rows.append(
            {
                "name": name.removeprefix("source: "),
                "images": f"{mask.sum():,}",
                "lesions": f"{len(set(lesions[mask])):,}",
                "classes": str(len(set(stored.labels[mask]))),
                "bacc": number(figures.estimate("bacc")),
                "bacc_decided": number(judged.figures(mask, judged.decided).estimate("bacc")),
                "auc_mel": number(figures.estimate("auc/MEL")),
                "auc_mel_calibrated": number(
                    judged.figures(mask, ranking=True, calibrated=True).estimate("auc/MEL")
                ),
                "sensitivity": share(asdict(lesion_share(fires[has_it], lesions[has_it]))),
                "specificity": share(asdict(lesion_share(~fires[lacks_it], lesions[lacks_it]))),
                "levels": " / ".join(f"{(levels == level).mean():.2f}" for level in LEVELS),
                "missed": share(asdict(lesion_share(unseen.triage[routine] == "routine", lesions[routine]))),
            }
        )
    return rows


def number(estimate: Estimate, sign: str = "") -> str:
    """Value and interval, or that it is undefined."""
    if np.isnan(estimate.value):
        return "undefined"
    if np.isnan(estimate.low):
        return f"{estimate.value:{sign}.3f} (too few for an interval)"
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
        "sources": source_rows(judged, groups),
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
    parser.add_argument("--masks", type=Path, help="folder with outlines of lesions")
    parser.add_argument("--output", type=Path, default=HERE.parent / "MODEL_CARD.md")
    options = parser.parse_args()
    packed = resolve_model(options.model)
    bundle = Bundle.load(packed)
    stored = Predictions.load(packed.ensemble_predictions("val"))
    robustness = json.loads(options.robustness.read_text(encoding="utf-8"))
    if robustness["networks"] != networks_of(bundle):
        parser.error(f"{options.robustness} was measured on other networks")
    environment = Environment(
        loader=FileSystemLoader(HERE),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )  # Markdown, not HTML
    words = environment.get_template("model_card.md.j2")
    groups = groups_of(Workspace(options.workspace), stored, options.masks)
    figures = context(bundle, judge(bundle, stored), groups, robustness)
    text = words.render(figures | {"gate": StoredQualityGate.load(packed.gate).figures})
    options.output.write_text(text, encoding="utf-8")
    print(options.output)


if __name__ == "__main__":
    main()
