"""Class activation maps of a batch that was just predicted, from the features of the same forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.data.inputs import ImageInput, load
from skinlesion_cli.decisions.triage import Outcome
from skinlesion_cli.explain.overlay import STYLES
from skinlesion_cli.explain.writer import OverlayWriter, Pixels
from skinlesion_cli.inference.engine import BatchOutput, Engine


def overlay_writer(folder: Path, bundle: Bundle, engine: Engine, **choices: Any) -> OverlayWriter:
    """A writer for this engine's maps; `choices` as in `OverlayWriter`."""
    return OverlayWriter(
        folder=folder,
        weights=[member.weight for member in engine.members],
        classifiers=[member.classifier for member in engine.members],
        thresholds=bundle.calibration.rule.thresholds,
        **({"style": STYLES[0]} | choices),
    )


def write_overlays(
    writer: OverlayWriter,
    images: Sequence[tuple[ImageInput, np.ndarray]],
    output: BatchOutput,
    outcome: Outcome,
    *,
    target_px: int,
    max_pixels: int,
) -> list[dict[str, Any]]:
    """Explain the decided class of each image; what the result table says of each map.

    `images` may have been read at a reduced scale (`target_px`): prediction must not depend on whether maps
    are wanted. The overlay shows the image at its own size.
    """
    records = writer.write(
        [source.id for source, _ in images],
        [_full_size(source, image, target_px, max_pixels) for source, image in images],
        output.features,
        outcome.decisions.decided,
        outcome.probabilities,
    )
    return [{"cam": record.overlay, "cam_magnitude": record.magnitude} for record in records]


def _full_size(source: ImageInput, image: np.ndarray, target_px: int, max_pixels: int) -> Pixels:
    # An image read at a reduced scale has at least twice the target on each side.
    if min(image.shape[:2]) < 2 * target_px:
        return image
    return partial(load, source, max_pixels=max_pixels)
