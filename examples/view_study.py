"""Which parts of an image should the networks see? Views of the whole, of the middle, and of the lesion.

    python examples/view_study.py builtin --workspace runs/builtin

Every image is judged by the network of the bundled or packed model that held it out. A row is the mean over
what it names, each in four flips: the whole image; its middle, 70 % of the width and the height, as in the
views `zoom`; the likely lesion (`explain.placement.likely_lesion`: dark and in the middle, found without a
network) with so much skin that the crop is 1.8 times as wide, or the whole image where none is found; and
the same in white light by shades of grey (Finlayson and Trezzi, 2004, norm 6). By source: balanced accuracy
of the argmax, the area under the curve of melanoma, and the differences to the first row, with 95 % intervals
(paired bootstrap over lesions).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from skinlesion_cli.artifacts.bundle import Bundle, resolve_model  # noqa: E402
from skinlesion_cli.artifacts.manifest import Manifest  # noqa: E402
from skinlesion_cli.artifacts.predictions import Predictions  # noqa: E402
from skinlesion_cli.artifacts.workspace import Workspace  # noqa: E402
from skinlesion_cli.data.preprocess import to_input  # noqa: E402
from skinlesion_cli.data.reading.images import read_image  # noqa: E402
from skinlesion_cli.decisions.evaluation.figures import Figures, Labelled, evaluate  # noqa: E402
from skinlesion_cli.explain.placement import likely_lesion  # noqa: E402
from skinlesion_cli.inference.runtimes.base import softmax  # noqa: E402
from skinlesion_cli.inference.runtimes.registry import RUNTIMES  # noqa: E402
from skinlesion_cli.taxonomy import shipped  # noqa: E402

ISIC2018 = shipped("isic2018")
MIDDLE = (0.15, 0.15, 0.7)
# The crop's side, as a multiple of the lesion's longer side, and at least this share of the image's.
AROUND, SMALLEST = 1.8, 0.35
NORM = 6

ROWS: dict[str, tuple[str, ...]] = {
    "whole and middle": ("whole", "middle"),
    "whole": ("whole",),
    "whole and lesion": ("whole", "lesion"),
    "whole, middle and lesion": ("whole", "middle", "lesion"),
    "lesion": ("lesion",),
    "whole and middle, white light": ("white", "white middle"),
}


def lesion_box(image: np.ndarray) -> tuple[float, float, float] | None:
    """Top, left and side of the square around the likely lesion, as shares of the image; None without one."""
    lesion = likely_lesion(image)
    if lesion is None:
        return None
    rows, columns = np.flatnonzero(lesion.any(axis=1)), np.flatnonzero(lesion.any(axis=0))
    extents = [((ends[0]) / lesion.shape[0], (ends[-1] + 1) / lesion.shape[0]) for ends in (rows, columns)]
    side = float(np.clip(max(high - low for low, high in extents) * AROUND, SMALLEST, 1.0))
    top, left = (float(np.clip((low + high) / 2 - side / 2, 0.0, 1.0 - side)) for low, high in extents)
    return top, left, side


def cut(image: np.ndarray, box: tuple[float, float, float]) -> np.ndarray:
    """The part of an image that a box of shares names; at least one pixel."""
    (top, left, side), (height, width) = box, image.shape[:2]
    first_row, first_column = round(top * height), round(left * width)
    return image[
        first_row : max(round((top + side) * height), first_row + 1),
        first_column : max(round((left + side) * width), first_column + 1),
    ]


def in_white_light(image: np.ndarray) -> np.ndarray:
    """Shades of grey: each channel divided by its share of the light, uint8 as the image."""
    pixels = image.astype(np.float64)
    light = np.mean(pixels**NORM, axis=(0, 1)) ** (1 / NORM)
    if light.min() <= 0.0:
        return image
    return np.clip(np.rint(pixels / (light / light.mean())), 0, 255).astype(np.uint8)


PARTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "whole": lambda image: image,
    "middle": lambda image: cut(image, MIDDLE),
    "lesion": lambda image: cut(image, lesion_box(image) or (0.0, 0.0, 1.0)),
    "white": in_white_light,
    "white middle": lambda image: cut(in_white_light(image), MIDDLE),
}


def of_fold(model: str, runtime: str, folder: Path, fold: str, files: list[str]) -> np.ndarray:
    """Probabilities of every part, the mean over four flips: float32 (n_images, n_parts, 7)."""
    member = next(m for m in Bundle.load(resolve_model(model)).members if str(m.fold) == fold)
    network, _ = RUNTIMES[runtime].load(member, "cpu")
    found = []
    for file in files:
        image = read_image((folder / file).read_bytes())
        inputs = [to_input(part(image), member.preprocessing) for part in PARTS.values()]
        flips = [shown[::down, ::right] for shown in inputs for down in (1, -1) for right in (1, -1)]
        values = softmax(network.logits(np.ascontiguousarray(flips)))
        found.append(values.reshape(len(PARTS), 4, -1).mean(axis=1))
    return np.array(found, dtype=np.float32)


def probabilities(model: str, runtime: str, folder: Path, rows: pd.DataFrame) -> np.ndarray:
    """Out-of-fold probabilities of every part, float32 (n_images, n_parts, 7)."""
    pieces = [
        (fold, at)
        for fold in sorted(set(rows["fold"]))
        for at in np.array_split(np.flatnonzero(rows["fold"] == fold), 4)
    ]
    done = Parallel(n_jobs=-1)(
        delayed(of_fold)(model, runtime, folder, fold, rows["file"].iloc[at].tolist()) for fold, at in pieces
    )
    found = np.empty((len(rows), len(PARTS), ISIC2018.n_classes), dtype=np.float32)
    for (_, at), part in zip(pieces, done, strict=True):
        found[at] = part
    return found


def table(source: str, labels: np.ndarray, lesions: np.ndarray, values: np.ndarray) -> list[str]:
    """The rows of one source in Markdown."""
    names = list(PARTS)
    lines, first = [], None
    for row, parts in ROWS.items():
        mean = values[:, [names.index(part) for part in parts]].mean(axis=1)
        figures = evaluate(
            Labelled(labels, mean, mean.argmax(axis=1), lesions, ISIC2018), n_resamples=1000, ranking=True
        )
        cells = [row, source, f"{len(labels):,}", *(_shown(figures, name) for name in ("bacc", "auc/MEL"))]
        cells += ["" if first is None else _shown(figures, name, than=first) for name in ("bacc", "auc/MEL")]
        first = first or figures
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _shown(figures: Figures, name: str, than: Figures | None = None) -> str:
    if than is None:
        estimate = figures.estimate(name)
        return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"
    difference = figures.difference(than, name)
    return f"{difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="packed with its predictions (`pack --with-predictions`)")
    parser.add_argument("--workspace", type=Path, required=True, help="holds the images and their source")
    parser.add_argument("--images", type=int, default=3000, help="at most so many of each source, seed 0")
    parser.add_argument("--runtime", choices=list(RUNTIMES), default="onnx")
    options = parser.parse_args()
    workspace = Workspace(options.workspace)
    stored = Predictions.load(resolve_model(options.model).ensemble_predictions("val")).table
    rows = Manifest.load(workspace.manifest).rows(stored["id"].tolist()).reset_index(drop=True)
    rows = rows.assign(fold=stored["fold"].to_numpy(dtype=str))
    generator = np.random.default_rng(0)
    print(
        "| mean over | source | images | balanced accuracy | AUC of MEL | balanced accuracy, difference "
        "| AUC, difference |"
    )
    print("|---|---|---|---|---|---|---|")
    for source, of_source in rows.groupby("source", sort=True):
        chosen = of_source.sample(min(options.images, len(of_source)), random_state=generator)
        chosen = chosen.sort_values("id").reset_index(drop=True)
        values = probabilities(options.model, options.runtime, workspace.images, chosen)
        labels = chosen["label"].map(ISIC2018.index).to_numpy(np.int64)
        lesions = chosen["lesion_id"].to_numpy(str)
        print("\n".join(table(str(source), labels, lesions, values)), flush=True)


if __name__ == "__main__":
    main()
