"""How fast training images come in, on one core: a plain PIL + torchvision dataset against this project.

    python examples/benchmarks/data_speed.py --images 200 --size-px 224

Every path reads the same drawn 600 x 450 JPEGs, of the file size that HAM10000 has (277 kB on average),
augments with the same transforms at the same probabilities (the published recipe for melanoma: flips,
rotation, shift and scale) and ends in normalised float batches of 32. Everything runs in one thread, and its
processor time is counted, so that other work on the machine matters little; the paths take turns, and the
median of the rounds is reported.

What bounds the speed from JPEG: the entropy coding of a file must be undone whatever the scale (about 2.3 of
the 3.8 ms that a 277 kB file takes), so that only the rest can be saved. Smaller files gain more (--file-kb
60).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import make_images
import numpy as np
import torch
from PIL import Image
from torchvision import transforms as T

from skinlesion_cli.artifacts.files import sha256_file
from skinlesion_cli.config.schema import IMAGENET_MEAN, IMAGENET_STD
from skinlesion_cli.data.reading.images import read_image
from skinlesion_cli.data.training.augmentation import make_augmentation
from skinlesion_cli.data.training.cache import ImageFile, open_cache
from skinlesion_cli.progress import SilentReporter

BATCH = 32
# With these counts the published recipe gives MEL its second level of augmentation.
COUNTS = {"MEL": 1113, "NV": 6705, "BCC": 514, "AKIEC": 327, "BKL": 1099, "DF": 115, "VASC": 142}


def draw_files(folder: Path, count: int, file_bytes: int) -> list[Path]:
    """Drawn images with the grain of a camera, saved at the quality that comes nearest to `file_bytes`."""
    files = []
    for number in range(count):
        label = make_images.CLASS_NAMES[number % 7]
        pixels = np.asarray(make_images.draw(label, number).image, dtype=np.float32)
        grain = np.random.default_rng(number).normal(0, 9, pixels.shape)
        image = Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8))
        encoded = [_encode(image, quality) for quality in (50, 60, 70, 75, 80, 85, 88, 90, 92, 94, 96, 98)]
        files.append(folder / f"{number:05d}.jpg")
        files[-1].write_bytes(min(encoded, key=lambda data: abs(len(data) - file_bytes)))
    return files


def _encode(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling=0)
    return file.getvalue()


class PlainDataset(torch.utils.data.Dataset):
    """What a tutorial has: PIL, torchvision transforms, one image a time."""

    def __init__(self, files: list[Path], size_px: int) -> None:
        self.files = files
        self.transform = T.Compose(
            [
                T.Resize((size_px, size_px)),
                T.RandomHorizontalFlip(0.5),
                T.RandomVerticalFlip(0.5),
                T.RandomApply([T.RandomRotation(90)], p=0.7),
                T.RandomApply([T.RandomAffine(0, translate=(0.05, 0.05), scale=(0.9, 1.1))], p=0.4),
                T.ToTensor(),
                T.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> torch.Tensor:
        return self.transform(Image.open(self.files[row]).convert("RGB"))


def plain(files: list[Path], size_px: int) -> Callable[[], Iterator[torch.Tensor]]:
    dataset = PlainDataset(files, size_px)
    return lambda: iter(torch.utils.data.DataLoader(dataset, batch_size=BATCH, num_workers=0))


def ours(read: Callable[[int], np.ndarray], count: int, size_px: int) -> Callable[[], Iterator[torch.Tensor]]:
    """Images stay uint8 until the batch is whole, and are then normalised along contiguous rows."""
    augmentation = make_augmentation("published", size_px, COUNTS)
    mean = (torch.tensor(IMAGENET_MEAN) * 255).repeat(size_px)
    scale = (1 / (torch.tensor(IMAGENET_STD) * 255)).repeat(size_px)

    def batches() -> Iterator[torch.Tensor]:
        for start in range(0, count, BATCH):
            rows = range(start, min(start + BATCH, count))
            images = np.stack([augmentation(read(row), 0, row) for row in rows])
            pixel_rows = torch.from_numpy(images).view(len(rows), size_px, size_px * 3).float()
            normalised = pixel_rows.sub_(mean).mul_(scale)
            yield normalised.view(len(rows), size_px, size_px, 3).permute(0, 3, 1, 2)

    return batches


def images_per_second(path: Callable[[], Iterator[torch.Tensor]], count: int) -> float:
    start = time.process_time()
    seen = sum(len(batch) for batch in path())
    assert seen == count
    return seen / (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--size-px", type=int, default=224)
    parser.add_argument("--file-kb", type=int, default=277, help="HAM10000 has 277 kB a file")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = draw_files(folder, options.images, options.file_kb * 1000)
        size_px = options.size_px
        cache = open_cache(
            folder / "cache",
            [ImageFile(file.stem, file.name, sha256_file(file)) for file in files],
            folder,
            size_px,
            SilentReporter(),
            threads=1,
        )
        paths = {
            "plain PIL + torchvision, from JPEG": plain(files, size_px),
            "skinlesion, from JPEG": ours(
                lambda row: read_image(files[row], target_px=size_px), len(files), size_px
            ),
            "skinlesion, from JPEG, margin 1": ours(
                lambda row: read_image(files[row], target_px=size_px, reduced_margin=1.0), len(files), size_px
            ),
            "skinlesion, from the cache": ours(lambda row: cache[files[row].stem], len(files), size_px),
        }
        speeds: dict[str, list[float]] = {name: [] for name in paths}
        for path in paths.values():
            images_per_second(path, len(files))  # warm up: plugins, page cache
        for _ in range(options.rounds):
            for name, path in paths.items():
                speeds[name].append(images_per_second(path, len(files)))
        mean_kb = statistics.mean(file.stat().st_size for file in files) / 1000
    medians = {name: statistics.median(found) for name, found in speeds.items()}
    reference = next(iter(medians.values()))
    print(f"{options.images} JPEGs of 600 x 450, {mean_kb:.0f} kB each, to {size_px} px; one core")
    for name, speed in medians.items():
        spread = f"{min(speeds[name]):.0f} to {max(speeds[name]):.0f}"
        print(f"{name:<36}{speed:8.0f} images/s  ({spread})  {speed / reference:5.2f} x")
    print(json.dumps({"python": platform.python_version(), "machine": platform.machine(), "speeds": medians}))


if __name__ == "__main__":
    main()
