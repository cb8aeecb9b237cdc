"""Batches for training: from cached pixels to augmented uint8 batches, by worker processes or on a GPU."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from skinlesion_cli.data.training.augmentation import Augmentation
from skinlesion_cli.data.training.batch_augmentation import BatchAugmentation, draw_uniforms
from skinlesion_cli.data.training.sampling import epoch_order, sample_seed
from skinlesion_cli.data.training.transfer import to_device
from skinlesion_cli.parallel import available_cores, started_processes

# Batches that are copied to a GPU before they are needed.
STEPS_AHEAD = 3
# Share of a GPU's free memory that the training images may take.
_RESIDENT_SHARE = 0.25
_ROWS_AT_ONCE = 512


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
    """The images of one epoch. `first_step` skips the steps that an interrupted run has already made.

    Process `rank` of `world_size` takes its share of every batch. All shares of a batch have the same size,
    so that the mean of their gradients is that of the batch: a smaller last batch leaves out the few images
    that cannot be divided among the processes. `draw_weights` is float64 (n_images,), see `epoch_order`.
    """

    seed: int
    epoch: int
    batch_size: int
    n_draws: int
    draw_weights: np.ndarray | None
    drop_last: bool = True
    first_step: int = 0
    rank: int = 0
    world_size: int = 1

    @property
    def n_steps(self) -> int:
        whole = self.n_draws // self.batch_size
        return max(whole + (1 if self._n_images(whole) and not self.drop_last else 0), 1)

    def _n_images(self, step: int) -> int:
        """Images of this step, of all processes together."""
        left = min(self.batch_size, self.n_draws - step * self.batch_size)
        return left // self.world_size * self.world_size

    def positions(self, step: int) -> range:
        """Positions in the epoch's order that this process takes in this step."""
        share = self._n_images(step) // self.world_size
        start = step * self.batch_size + share * self.rank
        return range(start, start + share)


class _EpochImages(Dataset):  # type: ignore[misc]
    """The batches of an epoch, one per item: a whole batch is one transfer between processes."""

    def __init__(
        self, source: TrainingImages, augmentation: Augmentation | BatchAugmentation | None, plan: EpochPlan
    ) -> None:
        self.source, self.augmentation, self.plan = source, augmentation, plan
        self.order = epoch_order(
            len(source.labels),
            seed=plan.seed,
            epoch=plan.epoch,
            weights=plan.draw_weights,
            n_draws=plan.n_draws,
        )

    def __len__(self) -> int:
        return self.plan.n_steps - self.plan.first_step

    def chosen(self, step: int) -> np.ndarray:
        """Indexes of the training images in this step, int64 (b,)."""
        positions = self.plan.positions(step)
        return self.order[positions.start : positions.stop]

    def uniforms(self, step: int) -> np.ndarray:
        """The random numbers of this process's share of a batch; those of any number of processes agree."""
        positions = self.plan.positions(step)
        drawn = draw_uniforms(self.plan.seed, self.plan.epoch, step, self.plan.batch_size)
        first = positions.start - step * self.plan.batch_size
        return drawn[first : first + len(positions)]

    def noise_seed(self, step: int) -> int:
        return sample_seed(self.plan.seed, self.plan.epoch, self.plan.positions(step).start)

    def targets(self, step: int) -> tuple[torch.Tensor, ...]:
        """Labels and, if there is any, metadata."""
        chosen = self.chosen(step)
        labels = torch.from_numpy(self.source.labels[chosen])
        if self.source.metadata is None:
            return (labels,)
        metadata = self.source.metadata[chosen]
        for row, position in enumerate(self.plan.positions(step)):
            generator = np.random.default_rng([self.plan.seed, self.plan.epoch, position, 0x3D])
            if generator.random() < self.source.metadata_drop:
                metadata[row] = 0.0
        return labels, torch.from_numpy(metadata)

    def __getitem__(self, item: int) -> tuple[torch.Tensor, ...]:
        step = item + self.plan.first_step
        pixels = np.asarray(self.source.pixels[self.source.rows[self.chosen(step)]])
        if isinstance(self.augmentation, BatchAugmentation):
            images = self.augmentation(torch.from_numpy(pixels), self.uniforms(step), self.noise_seed(step))
        else:
            images = torch.from_numpy(self._one_by_one(pixels, step))
        return images, *self.targets(step)

    def _one_by_one(self, pixels: np.ndarray, step: int) -> np.ndarray:
        if self.augmentation is None:
            return pixels
        return np.stack(
            [
                self.augmentation(image, int(label), sample_seed(self.plan.seed, self.plan.epoch, position))
                for image, label, position in zip(
                    pixels, self.source.labels[self.chosen(step)], self.plan.positions(step), strict=True
                )
            ]
        )


def batches(
    source: TrainingImages,
    augmentation: Augmentation | BatchAugmentation,
    plan: EpochPlan,
    workers: int,
    *,
    pinned: bool = False,
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Batches of one epoch: images uint8 (b, s, s, 3), labels int64 (b,), and metadata float32 (b, k)
    if there is any; `pinned` in memory from which a CUDA device copies without waiting.

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
        pin_memory=pinned,
        worker_init_fn=_leave_signals_to_main_process,
    )


def device_batches(
    source: DeviceImages, augmentation: BatchAugmentation, plan: EpochPlan
) -> Iterator[tuple[torch.Tensor, ...]]:
    """The same batches as `batches` gives for a `BatchAugmentation`, but for the pixel noise, made on a GPU.

    The pixels are on the device already, or are copied there by a thread that works ahead.
    """
    epoch = _EpochImages(source.images, None, plan)

    def raw(step: int) -> tuple[Any, ...]:
        moved = (to_device(part, augmentation.device) for part in epoch.targets(step))
        return source.take(epoch.chosen(step)), epoch.uniforms(step), *moved

    with ThreadPoolExecutor(1) as ahead:
        waiting: deque[Any] = deque()
        for step in range(plan.first_step, plan.n_steps + STEPS_AHEAD):
            if step < plan.n_steps:
                waiting.append((step, ahead.submit(raw, step)))
            if step >= plan.first_step + STEPS_AHEAD and waiting:
                ready, future = waiting.popleft()
                images, uniforms, *targets = future.result()
                yield augmentation(images, uniforms, epoch.noise_seed(ready)), *targets


class DeviceImages:
    """Training images for `device_batches`: kept on the GPU if they take at most a quarter of it.

    Raises no error when they do not fit: every batch is then copied from pinned memory.
    """

    def __init__(self, images: TrainingImages, device: torch.device) -> None:
        self.images, self.device = images, device
        self._stored: torch.Tensor | None = None
        n_bytes = len(images.rows) * int(np.prod(images.pixels.shape[1:]))
        # What an earlier training of this process has left does not count as free otherwise.
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(device)
        if n_bytes < _RESIDENT_SHARE * free:
            self._stored = torch.empty(
                (len(images.rows), *images.pixels.shape[1:]), dtype=torch.uint8, device=device
            )
            for start in range(0, len(images.rows), _ROWS_AT_ONCE):
                rows = images.rows[start : start + _ROWS_AT_ONCE]
                self._stored[start : start + len(rows)] = torch.from_numpy(
                    np.asarray(images.pixels[rows])
                ).to(device)

    @property
    def resident(self) -> bool:
        """Whether the images are kept on the device."""
        return self._stored is not None

    def take(self, chosen: np.ndarray) -> torch.Tensor:
        """Pixels of these training images, uint8 (b, s, s, 3), on the device."""
        if self._stored is not None:
            return self._stored[to_device(torch.from_numpy(chosen), self.device)]
        pixels = np.asarray(self.images.pixels[self.images.rows[chosen]])
        return to_device(torch.from_numpy(pixels), self.device)


def _leave_signals_to_main_process(_worker: int) -> None:
    # Ctrl-C reaches every process of the terminal, and SIGTERM of `timeout` or a scheduler every process of
    # the job. The main process ends its workers when its state is saved; if it dies, they notice and end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def default_workers() -> int:
    """Number of loader processes: one core is left for the network;
    training processes share the machine's cores.
    """
    cores = available_cores() // started_processes("LOCAL_WORLD_SIZE")
    return max(1, min(8, cores - 1))
