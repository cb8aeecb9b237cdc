"""Builds small workspaces without training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from skinlesion_cli.artifacts.calibration import Calibration
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.ensemble import Ensemble, Member
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.schema import Preprocessing, Recipe
from skinlesion_cli.data.metadata import n_columns
from skinlesion_cli.decisions.triage import DecisionRule
from skinlesion_cli.inference import tta
from tests.support.class_lists import ISIC2018


def make_workspace(
    root: Path,
    archs: tuple[str, ...] = ("tiny", "tiny"),
    size_px: int | list[int] = 32,
    stopping: dict | None = None,
    spread: float | None = 0.5,
    metadata_fields: tuple[str, ...] = (),
) -> Path:
    """A workspace with one network per entry of `archs`, random weights, and thresholds made up.

    With `metadata_fields` the first network has a branch for them, and there is a calibration for patient
    metadata, with other thresholds.
    """
    import torch

    from skinlesion_cli.models.backbones import backbone
    from skinlesion_cli.models.network import LesionNet, weights_to_bytes

    workspace = Workspace(root)
    members = []
    for fold, arch in enumerate(archs):
        torch.manual_seed(fold + 1)
        side_px = size_px if isinstance(size_px, int) else size_px[fold]
        preprocessing = Preprocessing(input_size_px=side_px)
        fields = () if fold else metadata_fields
        network = LesionNet(backbone(arch), preprocessing, n_classes=7, n_metadata=n_columns(fields))
        if spread is not None:
            # So that classes differ between images.
            torch.nn.init.normal_(network.classifier.weight, std=spread)
        recipe = Recipe(
            name="test",
            epochs=1,
            batch_size=1,
            input_size_px=side_px,
            learning_rate=1e-3,
            metadata_fields=fields,
        )
        figures = {"metadata_columns": n_columns(fields)} if fields else {}
        checkpoint = Checkpoint(
            arch,
            recipe,
            preprocessing,
            weights_to_bytes(network),
            b"epoch\n",
            figures,
            "none",
            0,
            fold,
            classes=ISIC2018,
        )
        artifact = checkpoint.save(workspace.checkpoint(checkpoint.name))
        members.append(Member(checkpoint.name, artifact.sha256, 1 / len(archs), 0.5))
    ensemble = Ensemble(tuple(members), "equal", tta.MODES["d4"], classes=ISIC2018)
    made = ensemble.save(workspace.ensemble)
    calibration = Calibration(
        DecisionRule(ISIC2018, thresholds={"MEL": 0.3, "AKIEC": 0.4}, malignant_threshold=0.5),
        "published",
        "adaptive" if stopping else "d4",
        tta.MODES["d4"],
        stopping=stopping,
    )
    calibration.save(workspace.calibration, inputs={"ensemble": made})
    if metadata_fields:
        rule = DecisionRule(ISIC2018, thresholds={"MEL": 0.2, "AKIEC": 0.2}, malignant_threshold=0.2)
        replace(calibration, rule=rule).save(workspace.metadata_calibration, inputs={"ensemble": made})
    return root


def make_images(folder: Path, count: int) -> Path:
    """Smooth random pictures, alternately in `a/` and `b/`, all different."""
    generator = np.random.default_rng(0)
    for index in range(count):
        coarse = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC)
        path = folder / "ab"[index % 2] / f"image {index:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, quality=95)
    return folder
