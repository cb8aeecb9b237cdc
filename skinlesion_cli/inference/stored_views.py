"""All views of many images through one network, for predictions that are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from skinlesion_cli.inference import tta
from skinlesion_cli.inference.runtimes.base import Runtime, softmax


def view_probabilities(
    runtime: Runtime,
    batches: Iterable[np.ndarray],
    views: Sequence[str],
    on_images: Callable[[int], None] = lambda n: None,
) -> np.ndarray:
    """Softmax of every view of every image, float32 (n_images, n_views, 7).

    `batches` yields pixels, uint8 (b, s, s, 3). `on_images` is told of every finished batch.
    """
    found = []
    for images in batches:
        found.append(np.stack([softmax(runtime.logits(tta.apply(view, images))) for view in views], axis=1))
        on_images(len(images))
    return np.concatenate(found)
