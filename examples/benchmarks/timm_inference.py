"""Images per second against timm's own way of predicting: one network, no test-time augmentation.

timm's `inference.py` is a script of its repository and no part of its package; its loop is written out here with
timm's own dataset, loader, transforms and model: `create_dataset`, `create_loader` with its defaults (batch 256 or
all images, 2 loader processes), `torch.inference_mode`, softmax and the top class of every image.

    python examples/benchmarks/timm_inference.py WORK_FOLDER --arch resnet50 --images 64
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import common


def timm_way(folder: Path, arch: str, size_px: int, images: int) -> float:
    """Seconds for all images, without loading the network."""
    import timm
    import torch
    from timm.data import create_dataset, create_loader

    torch.set_num_threads(common.os.cpu_count() or 1)
    model = timm.create_model(arch, num_classes=7, pretrained=False).eval()
    started = time.perf_counter()
    loader = create_loader(
        create_dataset(root=str(folder), name=""),
        batch_size=min(256, images),
        input_size=(3, size_px, size_px),
        use_prefetcher=True,
        num_workers=2,
        device=torch.device("cpu"),
    )
    top = []
    with torch.inference_mode():
        for pixels, _ in loader:
            top += torch.softmax(model(pixels), -1).topk(1).indices[:, 0].tolist()
    assert len(top) == images
    return time.perf_counter() - started


def our_way(paths: list[Path], root: Path) -> float:
    """Seconds for all images, without loading the network."""
    from skinlesion_cli.artifacts import bundle as bundles
    from skinlesion_cli.artifacts.workspace import Workspace
    from skinlesion_cli.data.inputs import ImageInput
    from skinlesion_cli.inference.stream import in_batches
    from skinlesion_cli.prediction.distribute import by_threads
    from skinlesion_cli.prediction.worker import Plan, Worker

    bundle = bundles.from_workspace(Workspace(root))
    worker = Worker(Plan(root, bundle.sha256, "onnx", tta="none", force=True), bundle)
    numbered = [(index + 1, ImageInput(path.name, path)) for index, path in enumerate(paths)]
    started = time.perf_counter()
    rows = [row for chunk in by_threads(worker, in_batches(numbered, 4), None) for row in chunk]
    assert len(rows) == len(paths)
    return time.perf_counter() - started


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2, help="the best of so many runs counts, for each way")
    options = parser.parse_args()
    root = common.workspace(options.folder / f"single-{options.arch}", [(options.arch, options.size)])
    folder = options.folder / f"timm-{options.images}"
    paths = common.images(folder / "a", options.images)
    timm_s = min(timm_way(folder, options.arch, options.size, options.images) for _ in range(options.rounds))
    ours_s = min(our_way(paths, root) for _ in range(options.rounds))
    common.report(
        arch=options.arch,
        images=options.images,
        images_per_s={
            "timm": round(options.images / timm_s, 2),
            "skinlesion": round(options.images / ours_s, 2),
        },
        times_faster=timm_s / ours_s,
    )


if __name__ == "__main__":
    main()
