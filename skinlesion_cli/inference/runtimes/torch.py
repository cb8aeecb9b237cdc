"""The torch runtime: the trained network itself, in channels-last memory order."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial

import numpy as np
import torch
from torch import nn

from skinlesion_cli.artifacts.exports import DETAIL, FEATURES, LOGITS
from skinlesion_cli.errors import SkinLesionError
from skinlesion_cli.inference.runtimes.base import Outputs, one_by_one


@contextmanager
def one_thread_per_call() -> Iterator[None]:
    """Within the block torch computes each call on the thread that makes it: images side by side, with one
    thread each, are faster than one image on all cores, and share a busy machine.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def _one_thread_in_forked_processes() -> None:
    """From now on torch computes with one thread in processes that are forked from this one.

    The threads of OpenMP are not there after a fork, and a computation on several would wait for them for
    ever.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


def _compute_in_float32(device: torch.device) -> None:
    """From now on convolutions of this process on a GPU keep all 24 bits of a float32 number. Torch's default
    there, TF32, keeps 11: an image would get other results than on a CPU.
    """
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False


class TorchRuntime:
    """Runs a network on pixels (n, s, s, 3); it has `features`, `logits`, `outputs`
    and `for_inference`, a faster copy of itself.

    `network` stays as it was trained, for methods that need its layers;
    its weights must not be changed any more.

    With `singly` the images of a batch run one at a time. With one thread on a CPU that is no slower, since
    the activations stay in the cache, and an image's result then does not depend on its neighbours in the
    batch, bit for bit.
    """

    name = "torch"

    def __init__(self, network: nn.Module, device: str = "cpu", *, singly: bool = False) -> None:
        _one_thread_in_forked_processes()
        self.singly = singly
        self.most_images: int | None = None
        self.device = torch.device(device)
        _compute_in_float32(self.device)
        self.network = network.eval().to(self.device, memory_format=torch.channels_last)
        self._running = self.network.for_inference()

    def logits(self, images: np.ndarray, metadata: np.ndarray | None = None) -> np.ndarray:
        """Logits, float32 (n, n_classes), of pixels uint8 (n, s, s, 3)."""
        return self._run(images, metadata, logits_only=True)[0]

    def logits_and_features(
        self, images: np.ndarray, metadata: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logits (n, n_classes) and the last feature map (n, n_features, h, w), float32, of one forward
        pass.
        """
        return self.outputs(images, metadata)[:2]

    def outputs(self, images: np.ndarray, metadata: np.ndarray | None = None) -> Outputs:
        """All outputs of one forward pass."""
        return Outputs(*self._run(images, metadata, logits_only=False))

    def _run(
        self, images: np.ndarray, metadata: np.ndarray | None, *, logits_only: bool
    ) -> tuple[np.ndarray, ...]:
        if self.singly:
            return one_by_one(partial(self._forward, logits_only=logits_only), images, metadata)
        return self._within_memory(images, metadata, logits_only)

    def _within_memory(
        self, images: np.ndarray, metadata: np.ndarray | None, logits_only: bool
    ) -> tuple[np.ndarray, ...]:
        """As many images at once as fit: half as many, with a warning, whenever the memory is exhausted."""
        outputs = []
        start = 0
        while start < len(images):
            size = min(self.most_images or len(images), len(images) - start)
            try:
                part = slice(start, start + size)
                rows = None if metadata is None else metadata[part]
                outputs.append(self._forward(images[part], rows, logits_only))
                start += size
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise SkinLesionError(
                        f"one image does not fit into the memory of {self.device}", "Use --device cpu."
                    ) from error
                self.most_images = size // 2
                warnings.warn(
                    f"{self.device} is out of memory; continuing with {size // 2} images at once",
                    stacklevel=2,
                )
        return tuple(np.concatenate(parts) for parts in zip(*outputs, strict=True))

    def _forward(
        self, images: np.ndarray, metadata: np.ndarray | None, logits_only: bool
    ) -> tuple[np.ndarray, ...]:
        with torch.inference_mode():
            pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
            given = () if metadata is None else (torch.from_numpy(metadata).to(self.device),)
            if logits_only:
                logits = self._running.logits(self._running.features(pixels), *given)
                return (logits.float().cpu().numpy(),)
            made = self._running.outputs(pixels, *given)
            return tuple(made[name].float().cpu().numpy() for name in (LOGITS, FEATURES, DETAIL))
