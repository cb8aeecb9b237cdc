"""How much of the positive part of Grad-CAM lies on the lesion, on generated images whose lesions are known.

    python examples/benchmarks/localisation.py WORK --images 350 --epochs 4

Draws images in which the lesion fills about as much of the picture as in real dermoscopy, trains
efficientnet_lite0 at 224 px on them, and explains 42 others. The share of the area is what a map that says
nothing would have. `dilated` lets the lesion grow by half a place of the map's 7 x 7 grid on every side.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]
SIDE_PX, ZOOM = 224, 1.6


def draw(folder: Path, count: int, seed: int, official: bool) -> None:
    """Images around their lesions; lesions.csv has the places in the cut image."""
    import make_images

    whole = round(SIDE_PX * ZOOM)
    rows = make_images.make(folder, count, seed=seed, width=whole, height=whole, official=official)
    images = folder / "ISIC2018_Task3_Training_Input" if official else folder
    for row in rows:
        corner = {}
        for axis in ("x_px", "y_px"):
            corner[axis] = int(np.clip(float(row[axis]) - SIDE_PX / 2, 0, whole - SIDE_PX))
            row[axis] = f"{float(row[axis]) - corner[axis]:.1f}"
        x, y = corner["x_px"], corner["y_px"]
        path = images / f"{row['image']}.jpg"
        Image.open(path).crop((x, y, x + SIDE_PX, y + SIDE_PX)).save(path, quality=88)
    make_images._write(folder / "lesions.csv", rows)


def inside(place: dict[str, str], more_px: float) -> np.ndarray:
    """Pixels on the lesion's ellipse, grown by `more_px`."""
    y, x = np.mgrid[0:SIDE_PX, 0:SIDE_PX] + 0.5
    across = (x - float(place["x_px"])) / (float(place["radius_x_px"]) + more_px)
    down = (y - float(place["y_px"])) / (float(place["radius_y_px"]) + more_px)
    return across**2 + down**2 <= 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--images", type=int, default=350, help="to train on (default 350)")
    parser.add_argument("--epochs", type=int, default=4, help="default 4")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    work = options.work.resolve()

    def run(*arguments: str) -> None:
        at = ("-w", str(work / "workspace"), "-q")
        subprocess.run([sys.executable, "-m", "skinlesion_cli", *arguments, *at], check=True, cwd=ROOT)

    if not (work / "workspace" / "calibration").exists():
        draw(work / "train", options.images, 21, official=True)
        draw(work / "test", 42, 77, official=False)
        settings = [f"input_size_px={SIDE_PX}", "progressive_sizes_px=[]", "harmonise_px=null"]
        settings += [f"cache_size_px={SIDE_PX}", f"epochs={options.epochs}"]
        run("download", "--from", str(work / "train"), "--split", "grouped")
        run(
            "train",
            "--arch",
            "efficientnet_lite0",
            "--recipe",
            "light",
            *[word for s in settings for word in ("--set", s)],
        )
        run("ensemble")
        run("calibrate", "--policy", "published")
    run("explain", str(work / "test"), "--raw", "npz", "--output", str(work / "maps"))
    with (work / "test" / "lesions.csv").open() as file:
        places = {row["image"]: row for row in csv.DictReader(file)}
    with (work / "maps" / "maps.csv").open() as file:
        records = list(csv.DictReader(file))
    found = []
    for record in records:
        place = places[Path(record["id"]).stem]
        heat = np.load(work / "maps" / record["raw"])["map"]
        grown = np.asarray(Image.fromarray(heat).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)).clip(0)
        for_lesion, dilated = inside(place, 0), inside(place, SIDE_PX / heat.shape[0] / 2)
        if grown.sum() > 0:
            mass = [grown[mask].sum() / grown.sum() for mask in (for_lesion, dilated)]
            found.append((*mass, for_lesion.mean(), dilated.mean(), record["decision"] == place["label"]))
    lesion, dilated_mass, area, dilated_area, right = np.mean(found, axis=0)
    print(
        f"{len(found)} maps of {len(records)} are not all zero; "
        f"{100 * right:.0f} % of the decisions are right"
    )
    print(f"share of positive CAM mass on the lesion {100 * lesion:.1f} % (area {100 * area:.1f} %)")
    print(
        f"the same, lesion dilated by half a place {100 * dilated_mass:.1f} % "
        f"(area {100 * dilated_area:.1f} %)"
    )


if __name__ == "__main__":
    main()
