"""A writer of overlays for the maps of an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.explain.writer import OverlayWriter
from skinlesion_cli.inference.engine import Engine


def overlay_writer(folder: Path, bundle: Bundle, engine: Engine, **choices: Any) -> OverlayWriter:
    """`choices` are the other fields of `OverlayWriter`."""
    return OverlayWriter(
        folder=folder,
        weights=[member.weight for member in engine.members],
        classifiers=[member.classifier for member in engine.members],
        thresholds=bundle.calibration.rule.thresholds,
        **choices,
    )
