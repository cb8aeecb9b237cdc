"""Batches for training: from cached pixels to augmented uint8 batches, in any number of processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from skinlesion_cli.data.training.augmentation import Augmentation
from skinlesion_cli.data.training.sampling import epoch_order, sample_seed
from skinlesion_cli.parallel import available_cores


@dataclass(frozen=True)
class TrainingImages:
    """Decoded training images: `pixels` uint8 (n, s, s, 3), usually memory-mapped; `rows` int64 (m,) selects
    the training images from it; `labels` int64 (m,) are their classes; `metadata` float32 (m, k) or None,
    replaced by
    zeros for a share `metadata_drop` of the images."""

    pixels: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    metadata: np.ndarray | None = None
    metadata_drop: float = 0.0

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes that are not forked get the name
        # of the memory-mapped file instead of its gigabytes.
        file = getattr(self.pixels, "filename", None)
        return vars(self) | ({"pixels": None, "file": file} if file else {})

    def __setstate__(self, state: dict[str, Any]) -> None:
        file = state.pop("file", None)
        if file:
            state["pixels"] = np.load(file, mmap_mode="r", allow_pickle=False)
        self.__dict__.update(state)


@dataclass(frozen=True)
class EpochPlan:
    """The images of one epoch. `first_step` skips the steps that an interrupted run has already made;
    process `rank`
    of `world_size` takes its share of every batch."""

    seed: int
    epoch: int
    batch_size: int
    n_draws: int
    sampler_power: float | None
    drop_last: bool = True
    first_step: int = 0
    rank: int = 0
    world_size: int = 1

    @property
    def n_steps(self) -> int:
        whole, rest = divmod(self.n_draws, self.batch_size)
        return max(whole + (1 if rest and not self.drop_last else 0), 1)

    def positions(self, step: int) -> range:
        """Positions in the epoch's order that this process takes in this step."""
        start = step * self.batch_size
        here = min(self.batch_size, self.n_draws - start)
        return range(
            start + here * self.rank // self.world_size, start + here * (self.rank + 1) // self.world_size
        )


class _EpochImages(Dataset):  # type: ignore[misc]
    def __init__(self, source: TrainingImages, augmentation: Augmentation, plan: EpochPlan) -> None:
        self.source, self.augmentation, self.plan = source, augmentation, plan
        self.order = epoch_order(
            source.labels, seed=plan.seed, epoch=plan.epoch, power=plan.sampler_power, n_draws=plan.n_draws
        )

    def __len__(self) -> int:
        return self.plan.n_steps - self.plan.first_step

    def __getitem__(self, item: int) -> tuple[torch.Tensor, ...]:
        """A whole batch: one transfer between processes instead of one per image."""
        positions = self.plan.positions(item + self.plan.first_step)
        chosen = self.order[positions.start : positions.stop]
        images = np.stack(
            [
                self.augmentation(
                    np.asarray(self.source.pixels[self.source.rows[row]]),
                    int(self.source.labels[row]),
                    sample_seed(self.plan.seed, self.plan.epoch, position),
                )
                for position, row in zip(positions, chosen, strict=True)
            ]
        )
        labels = torch.from_numpy(self.source.labels[chosen])
        if self.source.metadata is None:
            return torch.from_numpy(images), labels
        metadata = self.source.metadata[chosen]
        for row, position in enumerate(positions):
            generator = np.random.default_rng([self.plan.seed, self.plan.epoch, position, 0x3D])
            if generator.random() < self.source.metadata_drop:
                metadata[row] = 0.0
        return torch.from_numpy(images), labels, torch.from_numpy(metadata)


def batches(
    source: TrainingImages, augmentation: Augmentation, plan: EpochPlan, workers: int
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Batches of one epoch: images uint8 (b, s, s, 3), labels int64 (b,), and metadata float32 (b, k)
    if there is any.

    The augmentation of an image is seeded by its position in the epoch, so worker processes never repeat each
    other and any number of them gives the same batches.
    """
    dataset = _EpochImages(source, augmentation, plan)
    yield from DataLoader(
        dataset,
        batch_size=None,
        shuffle=False,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_leave_signals_to_main_process,
    )


def _leave_signals_to_main_process(_worker: int) -> None:
    # Ctrl-C reaches every process of the terminal; the main process stops its workers when it is ready.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def default_workers() -> int:
    """Number of loader processes: one core is left for the network;
    training processes share the machine's cores.
    """
    cores = available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(8, cores - 1))
