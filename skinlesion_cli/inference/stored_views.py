"""The probabilities of one network at every view of many images: what `train` stores for the held-out images.

Everything after training works on these: `ensemble` weights and merges them, `calibrate` fits thresholds and
the stopping rule on them. They are stored view by view, so that another TTA mode needs no network. `Engine`,
in contrast, averages the views of several networks for new images, and keeps none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from skinlesion_cli.config.schema import Preprocessing
from skinlesion_cli.data.preprocess import from_field
from skinlesion_cli.inference import tta
from skinlesion_cli.inference.runtimes.base import Runtime, softmax
from skinlesion_cli.parallel import in_order


def stored_views(preprocessing: Preprocessing) -> tuple[str, ...]:
    """Views whose probabilities are stored: all, but crops only where the network has a field for them."""
    return tuple(name for name in tta.VIEWS if preprocessing.field_px is not None or not tta.is_crop(name))


def view_probabilities(
    runtime: Runtime,
    batches: Iterable[np.ndarray],
    preprocessing: Preprocessing,
    views: Sequence[str],
    on_images: Callable[[int], None] = lambda n: None,
    *,
    metadata: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Softmax of every view of every image, before calibration.

    Parameters
    ----------
    batches : images as `data.preprocess.to_field` prepares them for the network, uint8 (b, f, f, 3) each.
    preprocessing : of the network.
    views : names in `tta.VIEWS`.
    on_images : called after each batch with the number of its images.
    metadata : of all images, float32 (n_images, n_columns), for a network that takes it; None: nothing is
        known.
    threads : batches that are computed side by side; the runtime must allow it.

    Returns
    -------
    float32 (n_images, n_views, n_classes), probabilities that sum to 1; views in the order given.

    Raises
    ------
    FloatingPointError : a logit is NaN or infinite.
    """

    def with_metadata() -> Iterator[tuple[np.ndarray, tuple[np.ndarray, ...]]]:
        start = 0
        for fields in batches:
            yield fields, () if metadata is None else (metadata[start : start + len(fields)],)
            start += len(fields)

    def of_batch(batch: tuple[np.ndarray, tuple[np.ndarray, ...]]) -> np.ndarray:
        fields, known = batch
        inputs = np.stack([from_field(field, preprocessing) for field in fields])
        shown = (tta.show(view, inputs, fields, preprocessing.interpolation) for view in views)
        by_view = [softmax(runtime.logits(each, *known)) for each in shown]
        return np.stack(by_view, axis=1)

    probabilities = []
    for values in in_order(with_metadata(), of_batch, threads=threads):
        probabilities.append(values)
        on_images(len(values))
    return np.concatenate(probabilities)
