"""Draw images that look a little like dermoscopy, for demonstrations and tests. No patient is behind them.

    python examples/make_images.py ./generated --images 140 --official

Seven classes, each with its own colour, outline and texture, on skin with hairs. The place of every lesion is
written to lesions.csv (centre and radii in pixels). With --official the folder has the layout of ISIC 2018
Task 3, with some lesions photographed more than once. The same seed draws the same images.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

CLASS_NAMES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")


@dataclass(frozen=True)
class Appearance:
    """How a class is drawn. Colours are RGB; `ragged` is how far the outline strays,
    as a share of the radius.
    """

    colour: tuple[int, int, int]
    second: tuple[int, int, int]
    ragged: float
    spots: int


APPEARANCES = {
    "MEL": Appearance((62, 38, 34), (40, 44, 70), 0.35, 14),
    "NV": Appearance((128, 82, 56), (108, 66, 44), 0.06, 3),
    "BCC": Appearance((206, 132, 128), (90, 96, 128), 0.15, 6),
    "AKIEC": Appearance((206, 108, 88), (232, 206, 176), 0.25, 18),
    "BKL": Appearance((150, 118, 78), (96, 74, 52), 0.12, 24),
    "DF": Appearance((170, 116, 92), (236, 216, 202), 0.05, 1),
    "VASC": Appearance((156, 26, 52), (96, 10, 44), 0.10, 8),
}


@dataclass(frozen=True)
class Drawn:
    """One image with the place of its lesion: centre and radii in pixels."""

    image: Image.Image
    x_px: float
    y_px: float
    radius_x_px: float
    radius_y_px: float


def draw(label: str, seed: int, width: int = 600, height: int = 450) -> Drawn:
    """Draw one image of this class; the same seed draws the same image."""
    rng = np.random.default_rng([seed, CLASS_NAMES.index(label)])
    skin = np.array([226, 178, 156]) + rng.normal(0, 8, 3)
    noise = rng.normal(0, 1, (height // 6 + 1, width // 6 + 1))
    texture = Image.fromarray((noise * 10 + 128).clip(0, 255).astype(np.uint8)).resize((width, height))
    base = skin[None, None] + (np.asarray(texture, dtype=float)[..., None] - 128) * 0.6
    image = Image.fromarray(base.clip(0, 255).astype(np.uint8))

    appearance, small = APPEARANCES[label], min(width, height)
    radius = small * rng.uniform(0.17, 0.27)
    rx, ry = radius * rng.uniform(0.9, 1.3), radius * rng.uniform(0.8, 1.1)
    x, y = width * rng.uniform(0.38, 0.62), height * rng.uniform(0.38, 0.62)
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    waves = sum(rng.normal(0, 1 / k) * np.cos(k * angles + rng.uniform(0, 6.3)) for k in range(2, 8))
    reach = 1 + appearance.ragged * np.asarray(waves) / 1.6
    outline = [
        (x + rx * r * np.cos(a), y + ry * r * np.sin(a))
        for a, r in zip(angles, reach.clip(0.5, 1.6), strict=True)
    ]
    lesion = Image.new("L", (width, height), 0)
    ImageDraw.Draw(lesion).polygon(outline, fill=235)
    lesion = lesion.filter(ImageFilter.GaussianBlur(small * 0.012))
    paint = Image.new("RGB", (width, height), appearance.colour)
    brush = ImageDraw.Draw(paint)
    for _ in range(appearance.spots):
        distance, angle = rng.uniform(0, 0.8), rng.uniform(0, 2 * np.pi)
        cx, cy = x + rx * distance * np.cos(angle), y + ry * distance * np.sin(angle)
        size = radius * (0.45 if appearance.spots == 1 else rng.uniform(0.06, 0.2))
        if appearance.spots == 1:
            cx, cy = x, y
        brush.ellipse((cx - size, cy - size, cx + size, cy + size), fill=appearance.second)
    paint = paint.filter(ImageFilter.GaussianBlur(small * 0.006))
    image.paste(paint, mask=lesion)

    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 7))):
        start, bend = rng.uniform(0, 1, 2), rng.normal(0, 0.4, 2)
        points = [
            (width * (start[0] + bend[0] * t), height * (start[1] + bend[1] * t + 0.1 * t * t))
            for t in np.linspace(0, 1, 12)
        ]
        pen.line(points, fill=(64, 44, 36), width=max(1, small // 220))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, small * 0.002)))
    return Drawn(image, x, y, rx, ry)


def make(
    folder: Path, n_images: int, *, seed: int, width: int, height: int, official: bool
) -> list[dict[str, str]]:
    """Draw `n_images`, classes in turn, and write them with their tables; returns a row an image."""
    images = folder / "ISIC2018_Task3_Training_Input" if official else folder
    images.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(n_images):
        label = CLASS_NAMES[index % len(CLASS_NAMES)]
        identity = f"GEN_{index:07d}"
        drawn = draw(label, seed * 1_000_003 + index, width, height)
        drawn.image.save(images / f"{identity}.jpg", quality=88)
        # Every third image of a class shows the lesion of the one before it.
        lesion = index - len(CLASS_NAMES) if (index // len(CLASS_NAMES)) % 3 == 2 else index
        rows.append(
            {
                "image": identity,
                "label": label,
                "lesion_id": f"LES_{lesion:07d}",
                "x_px": f"{drawn.x_px:.1f}",
                "y_px": f"{drawn.y_px:.1f}",
                "radius_x_px": f"{drawn.radius_x_px:.1f}",
                "radius_y_px": f"{drawn.radius_y_px:.1f}",
            }
        )
    _write(folder / "lesions.csv", rows)
    if official:
        _write(
            folder / "ISIC2018_Task3_Training_GroundTruth.csv",
            [
                {"image": r["image"], **{c: "1.0" if c == r["label"] else "0.0" for c in CLASS_NAMES}}
                for r in rows
            ],
        )
        _write(
            folder / "ISIC2018_Task3_Training_LesionGroupings.csv",
            [
                {"image": r["image"], "lesion_id": r["lesion_id"], "diagnosis_confirm_type": "generated"}
                for r in rows
            ],
        )
    return rows


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where to write")
    parser.add_argument("--images", type=int, default=14, help="how many images (default 14)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
    parser.add_argument("--width", type=int, default=600, help="width in pixels (default 600)")
    parser.add_argument("--height", type=int, default=450, help="height in pixels (default 450)")
    parser.add_argument("--official", action="store_true", help="write the layout of ISIC 2018 Task 3")
    options = parser.parse_args()
    rows = make(
        options.folder,
        options.images,
        seed=options.seed,
        width=options.width,
        height=options.height,
        official=options.official,
    )
    print(f"{len(rows)} images in {options.folder}")


if __name__ == "__main__":
    main()
