"""Copy a folder of labelled images with every image reduced, small enough to send to another machine.

    python examples/bundled_model/shrink_images.py ./isic2018 ./small/isic2018 --side-px 208

Tables are copied as they are; images keep their names and folders. An image is reduced until its shorter side
has `--side-px` pixels (its aspect ratio is kept) and stored as JPEG of the given quality; smaller images are
copied. Copies that exist already are kept, so an interrupted run resumes. Training on the copy is not exactly
training on the original: reduction and compression change the pixels.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from PIL import Image

from skinlesion_cli.data.reading.images import read_image

TABLES = {".csv", ".tsv", ".tab", ".txt", ".json"}


def shrink(source: Path, target: Path, side_px: int, quality: int) -> tuple[int, int]:
    """Copy the folder; returns the number of images and the bytes of all copies."""
    n_images = total_bytes = 0
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        is_image = path.suffix.lower() in (".jpg", ".jpeg")
        if not path.is_file() or not (is_image or path.suffix.lower() in TABLES):
            continue
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            partial = copy.with_name(f".{copy.name}.partial")
            if is_image:
                _shrink_image(path, partial, side_px, quality)
            else:
                shutil.copyfile(path, partial)
            os.replace(partial, copy)
        n_images += is_image
        total_bytes += copy.stat().st_size
    return n_images, total_bytes


def _shrink_image(path: Path, target: Path, side_px: int, quality: int) -> None:
    image = Image.fromarray(read_image(path.read_bytes()))
    scale = side_px / min(image.size)
    if scale >= 1:
        shutil.copyfile(path, target)
        return
    size = tuple(max(side_px, round(side * scale)) for side in image.size)
    image.resize(size, Image.Resampling.LANCZOS).save(target, "JPEG", quality=quality, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--side-px", type=int, default=208)
    parser.add_argument("--quality", type=int, default=85, help="JPEG quality, 1 to 95")
    options = parser.parse_args()
    n_images, total_bytes = shrink(options.source, options.target, options.side_px, options.quality)
    print(f"{n_images:,} images, {total_bytes / 1e6:.1f} MB in {options.target}")


if __name__ == "__main__":
    main()
