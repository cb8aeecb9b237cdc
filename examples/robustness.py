"""How much does a packed model's result depend on size, sharpness and compression of the image?

    python examples/robustness.py --model builtin --workspace runs/builtin --output robustness.json
    python examples/robustness.py --runtime onnx ...

Each image is shown as it is (those predictions are packed with the model) and again changed, alike for all,
to the one network that did not train on it, over all views of the ensemble. The table has the balanced
accuracy of the argmax (95 % interval by bootstrap over lesions), the difference to the images as they are
(paired), and how often the decision stays the same. The model must have been packed with its predictions,
which say which network held out which image.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from PIL import Image
from sharpness_check import CHANGES, Change, judged, scaled

from skinlesion_cli.artifacts.bundle import Bundle, resolve_model
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.preprocess import to_field
from skinlesion_cli.data.reading.images import read_image
from skinlesion_cli.decisions.evaluation.figures import Figures
from skinlesion_cli.inference.runtimes.registry import RUNTIMES
from skinlesion_cli.inference.stored_views import view_probabilities

BASE = "unchanged"
SHOWN: dict[str, Change] = {
    BASE: CHANGES[BASE],
    "shrunk to 0.6": scaled(0.6),
    "shrunk to 0.75": scaled(0.75),
    "enlarged to 1.5": scaled(1.5),
    "enlarged to 2": scaled(2.0),
    "all resized to 150 x 150": CHANGES["all resized to 150 x 150"],
    "blurred, sigma 1 px": CHANGES["blurred, sigma 1 px"],
    "JPEG quality 70": CHANGES["JPEG quality 70"],
}
_BATCH = 32


def networks_of(bundle: Bundle) -> list[str]:
    """What the rows are of: the hash of each network. Calibration and quality gate have no part in them."""
    return [member.artifact.sha256 for member in bundle.members if member.artifact]


def of_fold(
    model: str, runtime: str, folder: Path, fold: int, files: list[str], name: str, views: tuple[str, ...]
) -> np.ndarray:
    """Mean probabilities over the views, float32 (n, 7), by the network of this fold."""
    import torch

    torch.set_num_threads(1)
    members = Bundle.load(resolve_model(model)).members
    member = next(member for member in members if member.fold == fold)
    change = SHOWN[name]

    def batches() -> Iterator[np.ndarray]:
        for start in range(0, len(files), _BATCH):
            shown = [
                change(Image.fromarray(read_image((folder / file).read_bytes())))
                for file in files[start : start + _BATCH]
            ]
            yield np.stack([to_field(np.asarray(image), member.preprocessing) for image in shown])

    loaded, _ = RUNTIMES[runtime].load(member, "cpu")
    return view_probabilities(loaded, batches(), member.preprocessing, views).mean(axis=1)


def shown_as(
    model: str, runtime: str, folder: Path, rows: pd.DataFrame, views: tuple[str, ...], name: str
) -> np.ndarray:
    """Out-of-fold probabilities of all rows, changed this way; float32 (n, 7)."""
    found = np.empty((len(rows), 7), dtype=np.float32)
    # Several pieces of each fold, so that no core waits for the last one.
    places = [
        (fold, at)
        for fold in sorted(set(rows["fold"]))
        for at in np.array_split(np.flatnonzero(rows["fold"] == fold), 4)
    ]
    parts = Parallel(n_jobs=-1)(
        delayed(of_fold)(model, runtime, folder, int(fold), rows["file"].iloc[at].tolist(), name, views)
        for fold, at in places
    )
    for (_, at), part in zip(places, parts, strict=True):
        found[at] = part
    return found


def row(name: str, found: Figures, base: Figures, same: float) -> dict[str, object]:
    estimate, difference = found.estimate("bacc"), found.difference(base, "bacc")
    return {
        "shown": name,
        "bacc": [estimate.value, estimate.low, estimate.high],
        "difference": [difference.value, difference.low, difference.high],
        "same_decision": same,
        "sensitivity_mel": found.values["sensitivity/MEL"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--workspace", type=Path, required=True, help="holds the images and their sizes")
    parser.add_argument("--side", type=int, default=224, help="only images of this width and height; 0: all")
    parser.add_argument("--images", type=int, default=3000, help="at most so many of them, drawn with seed 0")
    parser.add_argument("--runtime", choices=list(RUNTIMES), default="torch")
    parser.add_argument("--shown", nargs="+", choices=list(SHOWN), default=list(SHOWN))
    parser.add_argument("--output", type=Path, required=True, help="JSON; finished rows there are kept")
    options = parser.parse_args()
    packed, own = resolve_model(options.model), Workspace(options.workspace)
    bundle = Bundle.load(packed)
    stored = Predictions.load(packed.ensemble_predictions("val"))
    manifest = Manifest.load(own.manifest)
    probabilities = stored.probabilities
    rows = stored.table.assign(file=manifest.rows(stored.table["id"].tolist())["file"].to_numpy())
    if options.side:
        sizes = [Image.open(own.images / file).size for file in rows["file"]]
        chosen = np.array([size == (options.side, options.side) for size in sizes])
        rows, probabilities = rows[chosen].reset_index(drop=True), probabilities[chosen]
    if len(rows) > options.images:
        drawn = np.sort(np.random.default_rng(0).choice(len(rows), options.images, replace=False))
        rows, probabilities = rows.iloc[drawn].reset_index(drop=True), probabilities[drawn]
    done = json.loads(options.output.read_text()) if options.output.exists() else {}
    this = {"networks": networks_of(bundle), "side_px": options.side, "images": len(rows)}
    if any(done.get(key) != value for key, value in this.items()):
        done = {**this, "rows": []}
    known = {entry["shown"] for entry in done["rows"]}
    # As they are, they were predicted when the networks had been trained.
    base = probabilities
    of_base = judged(rows, base)
    for name in options.shown:
        if name in known:
            continue
        values = (
            base
            if name == BASE
            else shown_as(options.model, options.runtime, own.images, rows, stored.views, name)
        )
        same = float((values.argmax(axis=1) == base.argmax(axis=1)).mean())
        done["rows"].append(row(name, judged(rows, values), of_base, same))
        options.output.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
        print(done["rows"][-1], file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
