"""Two models on the same images, each image judged by the networks that held out its lesion.

    python examples/bundled_model/compare.py runs/before/bundled builtin --workspace runs/builtin

The models were trained in the same folds and packed with their predictions, which say which network held out
which image. An image that one of the models has never seen is judged by its network of the fold that the
image has in the other, so that every figure is one of single networks. Shown by source: balanced accuracy of
the argmax over the classes that the source has, the area under the curve (AUC) of melanoma, and of malignant
against benign, over the views of the first model, with 95 % intervals (bootstrap over lesions).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

from robustness import BASE, shown_as  # noqa: E402

from skinlesion_cli.artifacts.bundle import Bundle, resolve_model  # noqa: E402
from skinlesion_cli.artifacts.manifest import Manifest  # noqa: E402
from skinlesion_cli.artifacts.predictions import Predictions  # noqa: E402
from skinlesion_cli.artifacts.workspace import Workspace  # noqa: E402
from skinlesion_cli.decisions.evaluation.figures import Figures, Labelled, evaluate  # noqa: E402
from skinlesion_cli.errors import name_items  # noqa: E402
from skinlesion_cli.taxonomy import shipped  # noqa: E402

ISIC2018 = shipped("isic2018")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", help="packed models, or `builtin`")
    parser.add_argument("--workspace", type=Path, required=True, help="holds the images")
    parser.add_argument("--images", type=int, default=3000, help="at most so many of each source, seed 0")
    parser.add_argument("--runtime", default="onnx")
    options = parser.parse_args()
    workspace = Workspace(options.workspace)
    manifest = Manifest.load(workspace.manifest)
    folds = _folds(options.models)
    rows = manifest.rows([identity for identity in manifest.table["id"] if identity in folds])
    rows = rows.reset_index(drop=True).assign(fold=rows["id"].map(folds).to_numpy())
    generator = np.random.default_rng(0)
    drawn = [
        of_source.sample(min(options.images, len(of_source)), random_state=generator)
        for _, of_source in rows.groupby("source", sort=True)
    ]
    views = Bundle.load(resolve_model(options.models[0])).ensemble.views
    print("| model | source | images | balanced accuracy | AUC of MEL | AUC of malignant |")
    print("|---|---|---|---|---|---|")
    for model in options.models:
        for sample in drawn:
            chosen = sample.sort_values("id").reset_index(drop=True)
            values = shown_as(model, options.runtime, workspace.images, chosen, views, BASE)
            labels = chosen["label"].map(ISIC2018.index).to_numpy(np.int64)
            lesions = chosen["lesion_id"].to_numpy(str)
            figures = evaluate(
                Labelled(labels, values, values.argmax(axis=1), lesions, ISIC2018), n_resamples=1000
            )
            shown = " | ".join(_interval(figures, name) for name in ("bacc", "auc/MEL", "malignant/auc"))
            print(f"| {model} | {chosen['source'][0]} | {len(chosen):,} | {shown} |", flush=True)


def _folds(models: list[str]) -> dict[str, str]:
    """Image id -> fold, of all images that any of the models held out; they must agree."""
    folds: dict[str, str] = {}
    for model in models:
        table = Predictions.load(resolve_model(model).ensemble_predictions("val")).table
        stored = dict(zip(table["id"], table["fold"], strict=True))
        moved = [identity for identity, fold in stored.items() if folds.get(identity, fold) != fold]
        if moved:
            sys.exit(f"{model} was trained in other folds than {models[0]}: {name_items(moved)}")
        folds |= stored
    return folds


def _interval(figures: Figures, name: str) -> str:
    estimate = figures.estimate(name)
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


if __name__ == "__main__":
    main()
