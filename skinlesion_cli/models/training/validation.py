"""A network's outputs on batches of validation images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from skinlesion_cli.models.training.memory import is_out_of_memory, no_room_for_one


@dataclass
class BatchPredictor:
    """Computes outputs on one device, on fewer images at once when memory runs out; `note` is told so.

    `most_images` that fit at once; None: a whole batch does, as far as is known.
    """

    device: torch.device
    note: Callable[[str], object]
    most_images: int | None = None

    def predict(
        self, network: nn.Module, batches: Iterable[tuple[torch.Tensor, ...]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Labels, int64 (n,), and logits, float32 (n, n_classes), of all images.

        Parameters
        ----------
        network : in evaluation mode, on the device.
        batches : uint8 images (b, s, s, 3), labels int64 (b,) and, if the network uses it,
            metadata float32 (b, k).

        Raises
        ------
        SkinLesionError : memory is too small for a single image.
        """
        labels, logits = [], []
        for images, batch_labels, *metadata in batches:
            labels.append(batch_labels.numpy())
            start = 0
            while start < len(images):
                part = slice(start, start + (self.most_images or len(images)))
                outputs = self._if_they_fit(network, images[part], [values[part] for values in metadata])
                if outputs is None:
                    self._halve(len(images[part]))
                else:
                    logits.append(outputs)
                    start += len(outputs)
        return np.concatenate(labels), np.concatenate(logits)

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _if_they_fit(
        self, network: nn.Module, images: torch.Tensor, metadata: list[torch.Tensor]
    ) -> np.ndarray | None:
        try:
            outputs = network(images.to(self.device), *(values.to(self.device) for values in metadata))
            result: np.ndarray = outputs.float().cpu().numpy()
            return result
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _halve(self, n_images: int) -> None:
        if n_images == 1:
            raise no_room_for_one(self.device)
        self.most_images = n_images // 2
        self.note(f"out of memory: validation images are now processed {self.most_images} at a time")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
