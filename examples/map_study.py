"""Which class activation map lies on the lesion: candidates compared on real lesions with known outlines.

    python examples/map_study.py --images IMAGES --masks MASKS --metadata HAM10000_metadata.csv

One photograph is drawn from each lesion that has a mask. Every candidate explains the decided class with all
networks of the model. `mass` is the share of the positive map inside the mask grown by 5 % of the side,
`lift` that share over the grown mask's share of the field, `points` how often the strongest place is inside,
`elsewhere` the mass that the map of the image before has inside this mask, which shows how much is owed to
lesions being in the middle. `deletion` and `insertion` say by how much the areas of Petsiuk et al. (2018,
arXiv:1806.07421) are better than those of random places. Small lesions fill less than 15 % of the field.
Intervals are 95 %, bootstrapped over lesions. Some of the photographs were used to train the networks, none
of the masks was.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from map_candidates import HEIGHT, WIDTH, Network, at_size, candidates
from PIL import Image
from scipy import ndimage

from skinlesion_cli.artifacts.bundle import Bundle, locate_model
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.reading.images import read_image
from skinlesion_cli.explain import sanity
from skinlesion_cli.inference.engine import EngineMember
from skinlesion_cli.inference.predictor import Predictor
from skinlesion_cli.inference.runtimes.base import softmax

GROWN, SMALL = 0.05, 0.15


def sample(masks: Path, metadata: Path, count: int, seed: int) -> list[tuple[str, str]]:
    """Image and class, one image per lesion, in random order."""
    by_lesion = defaultdict(list)
    with metadata.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if (masks / f"{row['image_id']}_segmentation.png").exists():
                by_lesion[row["lesion_id"]].append((row["image_id"], row["dx"]))
    generator = np.random.default_rng(seed)
    lesions = sorted(by_lesion)
    chosen = generator.permutation(len(lesions))[:count]
    return [by_lesion[lesions[i]][generator.integers(len(by_lesion[lesions[i]]))] for i in chosen]


def grown_mask(path: Path) -> tuple[np.ndarray, float]:
    """The mask grown by 5 % of the side, bool (HEIGHT, WIDTH), and the lesion's own share of the field."""
    mask = np.asarray(Image.open(path).convert("L").resize((WIDTH, HEIGHT), Image.Resampling.BOX)) >= 128
    # The field was squeezed to a square for the networks: 5 % of each side.
    away = ndimage.distance_transform_edt(~mask, sampling=(1 / HEIGHT, 1 / WIDTH))
    return away <= GROWN, float(mask.mean())


def measured(heat: np.ndarray, mask: np.ndarray) -> tuple[float, float, float]:
    """mass, lift, points of one map."""
    positive = heat.clip(0)
    total = float(positive.sum())
    if total <= 0:
        return 0.0, 0.0, 0.0
    mass = float(positive[mask].sum()) / total
    return mass, mass / float(mask.mean()), float(mask.ravel()[positive.argmax()])


def probability(members: Sequence[EngineMember], index: int, variants: np.ndarray) -> np.ndarray:
    """The class's mean probability over the networks, of images uint8 (n, s, s, 3)."""
    result: np.ndarray = np.mean([softmax(m.runtime.logits(variants))[:, index] for m in members], axis=0)
    return result


def interval(values: np.ndarray, rng: np.random.Generator) -> str:
    """Mean and 95 % interval over lesions."""
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return "undefined"
    means = values[rng.integers(0, len(values), (1000, len(values)))].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return f"{values.mean():.3f} ({low:.3f} to {high:.3f})"


def arguments(description: str | None) -> argparse.ArgumentParser:
    """What every study of maps on lesions with outlines asks for."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--masks", type=Path, required=True, help="ISIC_..._segmentation.png")
    parser.add_argument("--metadata", type=Path, required=True, help="with lesion_id, image_id and dx")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--count", type=int, default=400, help="lesions (default 400)")
    return parser


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--changed", type=int, default=30, help="of them for deletion and insertion")
    parser.add_argument("--slow", action="store_true", help="also candidates that need more forward passes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    bundle = Bundle.load(locate_model(Workspace(Path("none")), options.model))
    engine = Predictor.of_bundle(bundle, device="cpu", runtime="torch").engine
    networks = [Network(member) for member in engine.members]
    rng = np.random.default_rng(options.seed)
    began = time.perf_counter()
    rows: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    small, classes = [], []
    chosen = sample(options.masks, options.metadata, options.count, options.seed)
    before: dict[str, np.ndarray] = {}
    for number, (image, dx) in enumerate(chosen):
        path = next(options.images.glob(f"{image}.*"))
        pixels = engine.to_input(read_image(path), engine.members[0].preprocessing)
        mask, share = grown_mask(options.masks / f"{image}_segmentation.png")
        logits = np.mean([m.runtime.logits(pixels[None])[0] for m in engine.members], axis=0)
        decided = int(logits.argmax())
        maps = candidates(networks, pixels, decided, options.slow)
        maps["random places"] = at_size(rng.random((8, 8), dtype=np.float32))
        maps["centre of the image"] = at_size(sanity.centre_map(8))
        small.append(share < SMALL)
        classes.append(dx)
        areas = {}
        if number < options.changed:
            score = partial(probability, engine.members, decided)
            curves = sanity.perturbation_curves(pixels, list(maps.values()), score)
            areas = {name: (each.deletion, each.insertion) for name, each in zip(maps, curves, strict=True)}
        for name, heat in maps.items():
            gain = (np.nan, np.nan)
            if areas:
                gain = (
                    areas["random places"][0] - areas[name][0],
                    areas[name][1] - areas["random places"][1],
                )
            other = measured(before[name], mask)[0] if before else np.nan
            rows[name].append((*measured(heat, mask), *gain, other))
        before = maps
    is_small = np.array(small)
    figures: dict[str, Any] = {}
    took_s = time.perf_counter() - began
    print(f"{len(small)} lesions, {is_small.sum()} small, {bundle.model_id}, {took_s:.0f} s")
    columns: dict[str, tuple[int, Callable[[], np.ndarray]]] = {
        "mass": (0, lambda: np.ones_like(is_small)),
        "mass, small": (0, lambda: is_small),
        "points": (2, lambda: np.ones_like(is_small)),
        "points, small": (2, lambda: is_small),
        "lift": (1, lambda: np.ones_like(is_small)),
        "elsewhere": (5, lambda: np.ones_like(is_small)),
        "deletion": (3, lambda: np.ones_like(is_small)),
        "insertion": (4, lambda: np.ones_like(is_small)),
    }
    print("| candidate | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name, values in rows.items():
        table = np.array(values)
        cells = {
            column: interval(table[of().astype(bool), at], np.random.default_rng(1))
            for column, (at, of) in columns.items()
        }
        by_class = {dx: table[[other == dx for other in classes], 0].mean() for dx in sorted(set(classes))}
        figures[name] = cells | {"mass by class": {dx: round(float(v), 3) for dx, v in by_class.items()}}
        print(f"| {name} | " + " | ".join(cells.values()) + " |")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
