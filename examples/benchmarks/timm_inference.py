"""Images per second against timm's own way of predicting: one network, no test-time augmentation.

timm's `inference.py` is a script of its repository and no part of its package; its loop is written out here
with timm's own dataset, loader, transforms and model: `create_dataset`, `create_loader` with its defaults
(batch 256 or all images, 2 loader processes), `torch.inference_mode`,
softmax and the top class of every image.

    python examples/benchmarks/timm_inference.py WORK_FOLDER --arch resnet50 --images 64
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import common


def timm_way(folder: Path, arch: str, size_px: int, images: int, threads: int) -> Callable[[], None]:
    """Loads the network; hands back what predicts all images."""
    import timm
    import torch
    from timm.data import create_dataset, create_loader

    torch.set_num_threads(threads)
    model = timm.create_model(arch, num_classes=7, pretrained=False).eval()

    def run() -> None:
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

    return run


def our_way(paths: list[Path], root: Path, threads: int) -> Callable[[], None]:
    """Loads the network; hands back what predicts all images."""
    from skinlesion_cli.artifacts.bundle import Bundle
    from skinlesion_cli.artifacts.workspace import Workspace
    from skinlesion_cli.data.reading.inputs import ImageInput
    from skinlesion_cli.parallel import in_batches
    from skinlesion_cli.stages.predict.backends import by_threads
    from skinlesion_cli.stages.predict.worker import Plan, Worker

    bundle = Bundle.load(Workspace(root))
    worker = Worker(Plan(root, bundle.sha256, "onnx", tta="none", force=True), bundle)

    def run() -> None:
        numbered = [(index + 1, ImageInput(path.name, path)) for index, path in enumerate(paths)]
        rows = [row for chunk in by_threads(worker, in_batches(numbered, 4), threads) for row in chunk]
        assert len(rows) == len(paths)

    return run


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--threads", type=int, default=common.os.cpu_count(), help="for each way")
    parser.add_argument("--rounds", type=int, default=2, help="the best of so many runs counts, for each way")
    options = parser.parse_args()
    root = common.workspace(options.folder / f"single-{options.arch}", [(options.arch, options.size)])
    folder = options.folder / f"timm-{options.images}"
    paths = common.images(folder / "a", options.images)
    timm_run = timm_way(folder, options.arch, options.size, options.images, options.threads)
    our_run = our_way(paths, root, options.threads)
    ways = {"timm": common.best(timm_run, options.rounds), "onnx": common.best(our_run, options.rounds)}
    common.report(arch=options.arch, threads=options.threads, **common.compared(ways, "timm", options.images))


if __name__ == "__main__":
    main()
