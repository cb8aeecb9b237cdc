"""A writer of overlays for the maps of a predictor's networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from skinlesion_cli.explain.writer import OverlayWriter
from skinlesion_cli.inference.predictor import Predictor


def overlay_writer(folder: Path, predictor: Predictor, **choices: Any) -> OverlayWriter:
    """`choices` are the other fields of `OverlayWriter`."""
    members = predictor.engine.members
    return OverlayWriter(
        folder=folder,
        weights=[member.weight for member in members],
        classifiers=[member.classifier for member in members],
        thresholds=predictor.bundle.calibration.rule.fires_above,
        class_list=predictor.bundle.classes,
        model_sha256=predictor.bundle.sha256,
        **choices,
    )
