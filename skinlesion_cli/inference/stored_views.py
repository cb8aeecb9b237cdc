"""The probabilities of one network at every view of many images: what `train` stores for the held-out images.

Everything after training works on these: `ensemble` weights and merges them, `calibrate` fits thresholds and
the stopping rule on them. They are stored view by view, so that another TTA mode needs no network. `Engine`,
in contrast, averages the views of several networks for new images, and keeps none.
"""

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
    """Softmax of every view of every image, before calibration.

    Parameters
    ----------
    batches : pixels at the network's input size, uint8 (b, s, s, 3) each.
    views : names in `tta.VIEWS`.
    on_images : called after each batch with the number of its images.

    Returns
    -------
    float32 (n_images, n_views, 7), each row of 7 between 0 and 1 and summing to 1; views in the order given.

    Raises
    ------
    FloatingPointError : a logit is NaN or infinite.
    """
    probabilities = []
    for images in batches:
        by_view = [softmax(runtime.logits(tta.apply(view, images))) for view in views]
        probabilities.append(np.stack(by_view, axis=1))
        on_images(len(images))
    return np.concatenate(probabilities)
