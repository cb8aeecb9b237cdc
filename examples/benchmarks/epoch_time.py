"""Time of one training epoch against a plain PyTorch loop, and the validation loss that each ends with.

    python examples/benchmarks/epoch_time.py --from ISIC2018_FOLDER

Both train the same network from the same weights on the same images, with the same batch and input size,
optimiser, learning rate, augmentation strength and number of loader processes, and are judged by the same
code on the same validation images. The plain loop does what tutorials do: PIL opens each file every time,
torchvision transforms augment it, batches are NCHW floats. Ours is the project's own loader and loop. Rounds
alternate, so that what else the machine does falls on both; one round counts as the ratio of its two times.
The processor time of the processes (loaders included) is given as well: where computation and loaders share a
few cores it decides the time of an epoch, and it hardly depends on what else is running.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

from skinlesion_cli.artifacts.files import sha256_file  # noqa: E402
from skinlesion_cli.config.schema import Preprocessing, Recipe  # noqa: E402
from skinlesion_cli.data.preprocess import to_input  # noqa: E402
from skinlesion_cli.data.reading.images import read_image  # noqa: E402
from skinlesion_cli.data.training.augmentation import make_augmentation  # noqa: E402
from skinlesion_cli.data.training.cache import ImageFile, open_cache  # noqa: E402
from skinlesion_cli.data.training.loader import EpochPlan, TrainingImages, batches  # noqa: E402
from skinlesion_cli.models.backbones import backbone  # noqa: E402
from skinlesion_cli.models.network import LesionNet  # noqa: E402
from skinlesion_cli.models.pretrained import initialise  # noqa: E402
from skinlesion_cli.models.training.memory import keep_freed_memory  # noqa: E402
from skinlesion_cli.models.training.trainer import Trainer  # noqa: E402
from skinlesion_cli.progress import SilentReporter  # noqa: E402
from skinlesion_cli.taxonomy.shipped import shipped  # noqa: E402

ISIC2018 = shipped("isic2018")

RATE = 3e-4
SEED = 1


class Files(Dataset):
    """The plain way: open, convert, transform."""

    def __init__(self, paths: list[Path], labels: np.ndarray, size_px: int, spec) -> None:
        self.paths, self.labels = paths, labels
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(size_px, scale=(0.5, 1.0), ratio=(0.8, 1.25)),
                transforms.RandomHorizontalFlip(),
                transforms.RandomVerticalFlip(),
                transforms.RandomApply([transforms.RandomAffine(45, shear=8)], p=0.5),
                transforms.RandomApply([transforms.GaussianBlur(3, (0.3, 1.2))], p=0.35),
                transforms.RandomApply([transforms.ColorJitter(0.2, 0.2, 0.2, 0.03)], p=0.8),
                transforms.ToTensor(),
                transforms.Normalize(spec.mean, spec.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: int):
        return self.transform(Image.open(self.paths[item]).convert("RGB")), int(self.labels[item])


def clock() -> np.ndarray:
    """Seconds by the clock, and of processor time, this process's and that of its ended loaders."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return np.array([time.perf_counter(), sum(u.ru_utime + u.ru_stime for u in usage)])


def fresh_network(arch: str, size_px: int, weights: str) -> LesionNet:
    spec = backbone(arch)
    torch.manual_seed(SEED)
    network = LesionNet(spec, Preprocessing(input_size_px=size_px, mean=spec.mean, std=spec.std), n_classes=7)
    initialise(network, weights)
    return network


def plain_epoch(options, paths: list[Path], labels: np.ndarray) -> tuple[np.ndarray, LesionNet]:
    network = fresh_network(options.arch, options.size_px, options.weights)
    dataset = Files(paths, labels, options.size_px, network.spec)
    loader = DataLoader(
        dataset, options.batch_size, shuffle=True, num_workers=options.workers, drop_last=True
    )
    # The backbone alone: normalisation is the transform's.
    model = network.backbone.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.02)
    criterion = torch.nn.CrossEntropyLoss()
    started = clock()
    for images, targets in loader:
        optimizer.zero_grad()
        loss = criterion(model(images), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return clock() - started, network


def our_epoch(options, cache, rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, LesionNet]:
    keep_freed_memory()  # as `skinlesion train` does
    network = fresh_network(options.arch, options.size_px, options.weights)
    recipe = Recipe(
        name="benchmark",
        epochs=1,
        batch_size=options.batch_size,
        input_size_px=options.size_px,
        learning_rate=RATE,
        weight_decay=0.02,
        schedule="constant",
    )
    plan = EpochPlan(SEED, 0, options.batch_size, len(rows), None)
    images = TrainingImages(cache.images, rows, labels)
    augmentation = make_augmentation("default", options.size_px, dict.fromkeys(ISIC2018.codes, 1))

    def drawn(*_: int) -> Iterator[tuple[torch.Tensor, ...]]:
        return batches(images, augmentation, plan, options.workers)

    trainer = Trainer(
        network=network,
        recipe=recipe,
        seed=SEED,
        steps_per_epoch=plan.n_steps,
        batches=drawn,
        validation=lambda: [],
        device=torch.device("cpu"),
        reporter=SilentReporter(),
        classes=ISIC2018,
    )
    trainer.network.train()
    started = clock()
    for batch in drawn():
        trainer.train_step(batch)
        trainer.progress.step += 1
    return clock() - started, network


def validation_loss(network: LesionNet, images: np.ndarray, labels: np.ndarray) -> float:
    network.eval()
    logits = []
    with torch.inference_mode():
        for start in range(0, len(images), 32):
            logits.append(network(torch.from_numpy(images[start : start + 32])))
    return float(torch.nn.functional.cross_entropy(torch.cat(logits), torch.from_numpy(labels)))


def alone(epoch, held, *arguments) -> tuple[np.ndarray, float]:
    """An epoch in a process of its own, since ours changes how the process keeps memory; then its loss."""

    def work(pipe) -> None:
        seconds, network = epoch(*arguments)
        pipe.send((seconds, validation_loss(network, *held)))

    # Forked before this process has computed anything, so no thread is lost.
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(sending,))
    process.start()
    sending.close()
    found = receiving.recv()
    process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--from", dest="source", type=Path, help="images in the official layout; else generated"
    )
    parser.add_argument("--arch", default="efficientnet_lite0")
    parser.add_argument("--weights", default="auto")
    parser.add_argument("--images", type=int, default=1280, help="training images an epoch")
    parser.add_argument("--validation", type=int, default=320)
    parser.add_argument("--size-px", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        if options.source is None:
            import make_images

            options.source = Path(name) / "generated"
            n = options.images + options.validation
            make_images.make(options.source, n, seed=1, width=600, height=450, official=True)
        print(json.dumps(compare(options, Path(name)), indent=1))


def compare(options, folder: Path) -> dict[str, object]:
    truth = pd.read_csv(
        next(options.source.rglob("ISIC2018_Task3_Training_GroundTruth.csv")), index_col="image"
    )
    files = {path.stem: path.resolve() for path in options.source.rglob("*.jpg")}
    chosen = truth.sample(options.images + options.validation, random_state=0)
    paths = [files[identity] for identity in chosen.index]
    labels = chosen[list(ISIC2018.codes)].to_numpy().argmax(axis=1).astype(np.int64)
    held_out = paths[options.images :]
    paths, validation_labels = paths[: options.images], labels[options.images :]
    labels = labels[: options.images]
    preprocessing = Preprocessing(input_size_px=options.size_px)
    held_images = np.stack([to_input(read_image(path.read_bytes()), preprocessing) for path in held_out])
    started = time.perf_counter()
    image_files = [ImageFile(f"{index:06}", str(path), sha256_file(path)) for index, path in enumerate(paths)]
    # A third larger than the input, so that crops need not be enlarged.
    cache = open_cache(folder, image_files, Path("/"), options.size_px * 5 // 4, SilentReporter())
    cache_s = time.perf_counter() - started
    rows = np.arange(len(paths))
    ours, plain, our_losses, plain_losses = [], [], [], []
    for round_number in range(options.rounds):
        held = (held_images, validation_labels)
        seconds, loss = alone(our_epoch, held, options, cache, rows, labels)
        ours.append(seconds)
        our_losses.append(loss)
        seconds, loss = alone(plain_epoch, held, options, paths, labels)
        plain.append(seconds)
        plain_losses.append(loss)
        print(
            f"round {round_number + 1}: ours {ours[-1][0]:.1f} s, plain {plain[-1][0]:.1f} s, "
            f"ratio {plain[-1][0] / ours[-1][0]:.2f} (processor time {plain[-1][1] / ours[-1][1]:.2f}); "
            f"validation loss {our_losses[-1]:.3f} and {plain_losses[-1]:.3f}",
            file=sys.stderr,
        )
    return {
        "images": options.images,
        "size_px": options.size_px,
        "threads": options.threads,
        "loader_processes": options.workers,
        "ours_s": [times[0] for times in ours],
        "plain_s": [times[0] for times in plain],
        "ratio": statistics.median(b[0] / a[0] for a, b in zip(ours, plain, strict=True)),
        "processor_time_ratio": statistics.median(b[1] / a[1] for a, b in zip(ours, plain, strict=True)),
        "decoding_once_s": cache_s,
        "validation_loss_ours": our_losses,
        "validation_loss_plain": plain_losses,
    }


if __name__ == "__main__":
    main()
