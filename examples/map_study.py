"""Which class activation map lies on the lesion: candidates compared on real lesions with known outlines.

    python examples/map_study.py --images IMAGES --masks MASKS --metadata HAM10000_metadata.csv

One photograph is drawn from each lesion that has a mask. Every candidate explains the decided class with all
networks of the model. `mass` is the share of the positive map inside the mask grown by 5 % of the side, `lift`
that share over the grown mask's share of the field, `points` how often the strongest place is inside, and
`deletion` and `insertion` by how much the areas of Petsiuk et al. (2018, arXiv:1806.07421) are better than those
of random places. Small lesions fill less than 15 % of the field. Intervals are 95 %, bootstrapped over lesions.
Some of the photographs were used to train the networks, none of the masks was.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from skinlesion_cli.artifacts.bundle import Bundle, locate_model
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.reading.images import read_image
from skinlesion_cli.explain import sanity
from skinlesion_cli.explain.cam import resized
from skinlesion_cli.inference.predictor import Predictor

GROWN, SMALL = 0.05, 0.15
WIDTH, HEIGHT = 100, 75  # maps and masks are compared at this size
ZOOM = 0.75


def sample(masks: Path, metadata: Path, count: int, seed: int) -> list[tuple[str, str]]:
    """Image and class, one image per lesion, in random order."""
    by_lesion = defaultdict(list)
    with metadata.open() as file:
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


class Network:
    """One member: features of its layers for pixels uint8 (s, s, 3), and its gradients."""

    def __init__(self, member: Any) -> None:
        from skinlesion_cli.models.dilation import dilated

        self.net = member.runtime.network.eval()
        self.classifier = member.classifier
        self.finer = dilated(self.net.backbone, member.preprocessing.input_size_px).eval()
        sixteen = [info["module"] for info in self.net.backbone.feature_info if info["reduction"] == 16]
        self.layer = self.net.backbone.get_submodule(sixteen[-1])

    def forward(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Logits (7,), features (c, h, w), features of the dilated network (c, 2 h, 2 w)."""
        import torch

        with torch.inference_mode():
            images = torch.from_numpy(pixels[None].astype(np.float32))
            whole = (images - self.net.mean) / self.net.std
            inputs = whole.permute(0, 3, 1, 2)
            features = self.net.backbone.forward_features(inputs)
            logits = self.net.logits(features)
            finer = self.finer.forward_features(inputs)
        return logits[0].numpy(), features[0].numpy(), finer[0].numpy()

    def at_sixteen(self, pixels: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Activations and the gradient of `weights @ logits` at the layer of stride 16, both (c, 2 h, 2 w)."""
        import torch

        kept = []
        hook = self.layer.register_forward_hook(lambda _m, _i, out: kept.append(out))
        try:
            with torch.enable_grad():
                images = torch.from_numpy(pixels[None].astype(np.float32)).requires_grad_()
                score = (self.net(images)[0] * torch.from_numpy(weights)).sum()
                gradient = torch.autograd.grad(score, kept[0])[0]
        finally:
            hook.remove()
        return kept[0][0].detach().numpy(), gradient[0].numpy()


def shifted(pixels: np.ndarray, y: int, x: int) -> np.ndarray:
    """The image moved by so many pixels, its border repeated."""
    side = pixels.shape[0]
    rows, columns = (np.clip(np.arange(side) - by, 0, side - 1) for by in (y, x))
    return np.ascontiguousarray(pixels[rows][:, columns])


def at_size(heat: np.ndarray) -> np.ndarray:
    """float32 (HEIGHT, WIDTH), bilinear."""
    return resized(heat, WIDTH, HEIGHT, Image.Resampling.BILINEAR)


def centred(classifier: np.ndarray, index: int) -> np.ndarray:
    """The class's weights less the mean of all classes': what moves probabilities."""
    return classifier[index] - classifier.mean(axis=0)


def against_others(classifier: np.ndarray, index: int, logits: np.ndarray) -> np.ndarray:
    """The class's weights less those of its rivals, as the softmax of the others shares them out."""
    others = np.exp(logits - logits.max())
    others[index] = 0.0
    return classifier[index] - (others / others.sum()) @ classifier


def candidates(networks: list[Network], pixels: np.ndarray, decided: int, slow: bool) -> dict[str, np.ndarray]:
    """Signed maps at one size by the candidate's name, each the mean over the networks."""
    maps: dict[str, list[np.ndarray]] = defaultdict(list)
    one_hot = np.eye(7, dtype=np.float32)[decided]
    side = pixels.shape[0]
    for number, network in enumerate(networks):
        logits, coarse, fine = network.forward(pixels)
        own, mean, rival = (
            network.classifier[decided],
            centred(network.classifier, decided),
            against_others(network.classifier, decided, logits),
        )

        def cam(weights: np.ndarray, features: np.ndarray) -> np.ndarray:
            return np.tensordot(weights, features, 1).astype(np.float32)

        maps["last features"].append(at_size(cam(own, coarse)))
        maps["last features, centred"].append(at_size(cam(mean, coarse)))
        maps["last features, against rivals"].append(at_size(cam(rival, coarse)))
        maps["dilated"].append(at_size(cam(own, fine)))
        maps["dilated, centred"].append(at_size(cam(mean, fine)))
        maps["dilated, against rivals"].append(at_size(cam(rival, fine)))
        if number == 0:
            maps["dilated, centred, one network"].append(at_size(cam(mean, fine)))
        active, gradient = network.at_sixteen(pixels, one_hot - 1 / 7)
        hires, layer = (active * gradient).sum(0), (active * gradient.clip(0)).sum(0)
        grad = np.tensordot(gradient.mean(axis=(1, 2)), active, 1)
        maps["stride 16: HiResCAM"].append(at_size(hires))
        maps["stride 16: LayerCAM"].append(at_size(layer))
        maps["stride 16: Grad-CAM"].append(at_size(grad))
        maps["stride 16: gradient norm"].append(at_size(np.sqrt((gradient**2).sum(0))))
        maps["fused: last features x LayerCAM"].append(
            np.sqrt(at_size(cam(mean, coarse)).clip(0) * at_size(layer).clip(0))
        )
        maps["fused: last features x HiResCAM"].append(
            np.sqrt(at_size(cam(mean, coarse)).clip(0) * at_size(hires).clip(0))
        )
        if not slow:
            continue
        step = round(side / coarse.shape[-1] / 2)
        moved, moved_fine = [], []
        for y in (-step // 2, step // 2):
            for x in (-step // 2, step // 2):
                _, c, f = network.forward(shifted(pixels, y, x))
                shares = (-y / side * HEIGHT, -x / side * WIDTH)
                for features, into in ((c, moved), (f, moved_fine)):
                    back = ndimage.shift(at_size(cam(mean, features)), shares, order=1, mode="nearest")
                    into.append(back)
        maps["last features, centred, 4 shifts"].append(np.mean(moved, axis=0))
        maps["dilated, centred, 4 shifts"].append(np.mean(moved_fine, axis=0))
        zoomed = []
        for top in (0.0, 1 - ZOOM):
            for left in (0.0, 1 - ZOOM):
                box = [round(v * side) for v in (left, top, left + ZOOM, top + ZOOM)]
                crop = Image.fromarray(pixels).crop(box).resize((side, side), Image.Resampling.BICUBIC)
                _, c, _ = network.forward(np.asarray(crop))
                w, h = round(ZOOM * WIDTH), round(ZOOM * HEIGHT)
                part = np.full((HEIGHT, WIDTH), np.nan, np.float32)
                y, x = round(top * HEIGHT), round(left * WIDTH)
                small = resized(cam(mean, c), w, h, Image.Resampling.BILINEAR)[: HEIGHT - y, : WIDTH - x]
                part[y : y + h, x : x + w] = small
                zoomed.append(part)
        maps["last features, centred, 4 zooms"].append(
            np.nanmean(np.stack([at_size(cam(mean, coarse)), *zoomed]), axis=0)
        )
    means = {name: np.mean(each, axis=0) for name, each in maps.items()}
    for name in ("last features, centred", "dilated, centred", "dilated"):
        means[f"{name}, above its mean"] = means[name] - means[name].mean()
    return means


def measured(heat: np.ndarray, mask: np.ndarray) -> tuple[float, float, float]:
    """mass, lift, points of one map."""
    positive = heat.clip(0)
    total = float(positive.sum())
    if total <= 0:
        return 0.0, 0.0, 0.0
    mass = float(positive[mask].sum()) / total
    return mass, mass / float(mask.mean()), float(mask.ravel()[positive.argmax()])


def interval(values: np.ndarray, rng: np.random.Generator) -> str:
    """Mean and 95 % interval over lesions."""
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return "undefined"
    means = values[rng.integers(0, len(values), (1000, len(values)))].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return f"{values.mean():.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--masks", type=Path, required=True, help="ISIC_..._segmentation.png")
    parser.add_argument("--metadata", type=Path, required=True, help="with lesion_id, image_id and dx")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--count", type=int, default=400, help="lesions (default 400)")
    parser.add_argument("--changed", type=int, default=40, help="of them for deletion and insertion")
    parser.add_argument("--fast", action="store_true", help="without the candidates that need more forward passes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    bundle = Bundle.load(locate_model(Workspace(Path("none")), options.model))
    engine = Predictor.of_bundle(bundle, device="cpu", runtime="torch").engine
    networks = [Network(member) for member in engine.members]
    rng = np.random.default_rng(options.seed)
    began = time.perf_counter()
    rows: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    small, classes = [], []
    for number, (image, dx) in enumerate(sample(options.masks, options.metadata, options.count, options.seed)):
        path = next(options.images.glob(f"{image}.*"))
        pixels = engine.to_input(read_image(path), engine.members[0].preprocessing)
        mask, share = grown_mask(options.masks / f"{image}_segmentation.png")
        logits = np.mean([m.runtime.logits(pixels[None])[0] for m in engine.members], axis=0)
        decided = int(logits.argmax())
        maps = candidates(networks, pixels, decided, not options.fast)
        maps["random places"] = at_size(rng.random((8, 8), dtype=np.float32))
        maps["centre of the image"] = at_size(sanity.centre_map(8))
        small.append(share < SMALL)
        classes.append(dx)

        def score(variants: np.ndarray) -> np.ndarray:
            each = [torch.softmax(torch.from_numpy(m.runtime.logits(variants)), 1) for m in engine.members]
            return torch.stack(each).mean(0)[:, decided].numpy()

        areas = {}
        if number < options.changed:
            areas = {name: sanity.deletion_insertion(pixels, heat, score) for name, heat in maps.items()}
        for name, heat in maps.items():
            gain = (np.nan, np.nan)
            if areas:
                gain = (
                    areas["random places"][0] - areas[name][0],
                    areas[name][1] - areas["random places"][1],
                )
            rows[name].append((*measured(heat, mask), *gain))
    is_small = np.array(small)
    figures: dict[str, Any] = {}
    print(f"{len(small)} lesions, {is_small.sum()} small, {bundle.model_id}, {time.perf_counter() - began:.0f} s")
    columns: dict[str, tuple[int, Callable[[], np.ndarray]]] = {
        "mass": (0, lambda: np.ones_like(is_small)),
        "mass, small": (0, lambda: is_small),
        "points": (2, lambda: np.ones_like(is_small)),
        "points, small": (2, lambda: is_small),
        "lift": (1, lambda: np.ones_like(is_small)),
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
        figures[name] = cells | {
            "mass by class": {
                dx: round(float(table[[c == dx for c in classes], 0].mean()), 3) for dx in sorted(set(classes))
            }
        }
        print(f"| {name} | " + " | ".join(cells.values()) + " |")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
