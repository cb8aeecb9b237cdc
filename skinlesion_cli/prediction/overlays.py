"""Class activation maps of a batch that was just predicted, from the features of the same forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from skinlesion_cli.artifacts.files import atomic_file
from skinlesion_cli.decisions.triage import Outcome
from skinlesion_cli.explain.cam import class_maps
from skinlesion_cli.explain.overlay import overlay
from skinlesion_cli.inference.engine import BatchOutput, Engine
from skinlesion_cli.taxonomy import CLASS_NAMES


def write_overlays(
    folder: Path, engine: Engine, images: Mapping[str, np.ndarray], output: BatchOutput, outcome: Outcome
) -> None:
    """One PNG an image, `<id>.cam.png`, for the decided class."""
    decided = outcome.decisions.decided
    maps = [
        member.weight * class_maps(features, member.classifier, decided)
        for member, features in zip(engine.members, output.features, strict=True)
    ]
    for index, (identity, image) in enumerate(images.items()):
        heat = sum(_grown(member_maps[index], maps) for member_maps in maps)
        name = CLASS_NAMES[decided[index]]
        title = f"{name} p={outcome.probabilities[index, decided[index]]:.2f}"
        with atomic_file(overlay_path(folder, identity)) as file:
            overlay(image, np.asarray(heat), title).save(file, format="PNG")


def overlay_path(folder: Path, identity: str) -> Path:
    """Below `folder`, whatever the id: no id leads out of it."""
    parts = [part for part in identity.split("/") if part not in ("", ".")]
    safe = ["__" if part == ".." else part for part in parts] or ["image"]
    return folder.joinpath(*safe[:-1], f"{safe[-1]}.cam.png")


def _grown(heat: np.ndarray, maps: Sequence[np.ndarray]) -> np.ndarray:
    """A member's map in the common frame: the finest grid of all members."""
    side = max(member_maps.shape[-1] for member_maps in maps)
    if heat.shape == (side, side):
        return heat
    return np.asarray(Image.fromarray(heat, mode="F").resize((side, side), Image.Resampling.BILINEAR))
