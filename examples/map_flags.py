"""How often the card says that a map lies mostly outside the lesion, and how often rightly.

    python examples/map_flags.py --images IMAGES --masks MASKS --metadata HAM10000_metadata.csv

One photograph is drawn from each lesion that has a mask. The likely lesion (`explain/placement.py`) is
compared with the mask (intersection over union), and the share of the default map outside the likely lesion
with that outside the mask, both grown by 5 % of the side. A flag is right where less than half of the map is
on the mask. The 400 lesions that served to choose the constants of the likely lesion are left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from map_candidates import at_size
from map_study import arguments, grown_mask, measured, sample
from PIL import Image

from skinlesion_cli.artifacts.bundle import Bundle, locate_model
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.reading.images import read_image
from skinlesion_cli.explain.member_maps import ensemble_maps
from skinlesion_cli.explain.placement import likely_lesion, placement
from skinlesion_cli.inference.predictor import Predictor, sources_of

# The constants were chosen on the first so many lesions in the order of this seed.
CHOSEN_ON, SEED = 400, 0
# Shares of the map outside the likely lesion above which a map would be flagged.
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)


def held_out(masks: Path, metadata: Path, count: int) -> list[str]:
    """Images of lesions on which no constant was chosen, one per lesion, in random order."""
    return [image for image, _ in sample(masks, metadata, CHOSEN_ON + count, SEED)[CHOSEN_ON:]]


def overlap(lesion: np.ndarray, path: Path) -> float:
    """Intersection over union of the likely lesion and a mask."""
    mask = np.asarray(Image.open(path).convert("L").resize(lesion.shape[::-1], Image.Resampling.BOX)) >= 128
    return float((lesion & mask).sum() / max(1, (lesion | mask).sum()))


def report(rows: np.ndarray, model: str) -> None:
    """Print the figures. Columns: overlap, outside the likely lesion, at the border, outside the mask."""
    overlaps, outside, border, truly = rows.T
    known = np.isfinite(outside)
    print(f"{len(rows)} lesions, {model}")
    print(f"likely lesion: none in {(~known).sum()}; mean overlap of the others {np.nanmean(overlaps):.3f}")
    print(f"outside the lesion by either: correlation {np.corrcoef(outside[known], truly[known])[0, 1]:.2f}")
    wrong = truly > 0.5
    print(
        f"maps with less than half on the mask: {wrong.sum()}, {(wrong & ~known).sum()} without likely lesion"
    )
    print("| flagged above | flagged | rightly | of the maps off the mask |")
    print("|---|---|---|---|")
    for name, shares in (("outside", outside), ("at the border", border)):
        for threshold in THRESHOLDS:
            flagged = np.nan_to_num(shares) > threshold
            hits = (flagged & wrong).sum()
            print(f"| {name} {threshold} | {flagged.sum()} | {hits} | {hits} of {wrong.sum()} |")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--runtime", default="auto")
    options = parser.parse_args()
    bundle = Bundle.load(locate_model(Workspace(Path("none")), options.model))
    predictor = Predictor.of_bundle(bundle, device="cpu", runtime=options.runtime)
    rows = []
    for image in held_out(options.masks, options.metadata, options.count):
        path, mask_path = options.images / f"{image}.jpg", options.masks / f"{image}_segmentation.png"
        batch = predictor.run(list(sources_of(str(path), 0)), keep_layers=True)
        decided = batch.decided
        heat = ensemble_maps(predictor.engine.members, batch.output.layers, decided)[0]
        pixels = read_image(path)
        lesion, lies = likely_lesion(pixels), placement(pixels, heat)
        mask, _ = grown_mask(mask_path)
        rows.append(
            (
                np.nan if lesion is None else overlap(lesion, mask_path),
                np.nan if lies.outside_lesion is None else lies.outside_lesion,
                np.nan if lies.at_border is None else lies.at_border,
                1 - measured(at_size(heat), mask)[0],
            )
        )
    report(np.array(rows), bundle.model_id)


if __name__ == "__main__":
    main()
