"""A workspace with made-up predictions of two networks: everything after training, without training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.inference.tta import MODES
from tests.support import synthetic
from tests.support.class_lists import ISIC2018


def make(
    root: Path,
    *,
    n_lesions: int = 500,
    members: tuple[str, ...] = ("one", "two"),
    seed: int = 50,
    views: tuple[str, ...] = MODES["d4"],
) -> Workspace:
    """Predictions of validation and test images by every member, on these 8 views; manifest and split."""
    workspace = Workspace(root)
    tables, parts = {}, {}
    for part, part_seed in (("val", seed), ("test", seed + 1)):
        labels, values, lesions = synthetic.predictions(n_lesions, part_seed)
        tables[part] = pd.DataFrame(
            {
                "id": [f"{part}_{row:05d}" for row in range(len(labels))],
                "lesion_id": [f"{part}-{lesion}" for lesion in lesions],
                "label": [ISIC2018.codes[label] for label in labels],
                "fold": "",
            }
        )
        parts[part] = values
    manifest, split = _dataset(workspace, tables)
    for part, values in parts.items():
        for number, member in enumerate(members):
            generator = np.random.default_rng(100 * seed + number)
            logits = np.log(np.maximum(values, 1e-9))[:, None] + generator.normal(0, 0.4, (len(values), 8, 7))
            raised = np.exp(logits - logits.max(axis=2, keepdims=True))
            values_of_views = (raised / raised.sum(axis=2, keepdims=True)).astype(np.float32)
            Predictions(tables[part], values_of_views, views, member, part, classes=ISIC2018).save(
                workspace.predictions(member, part),
                inputs={"manifest": manifest, "split": split, "checkpoint": f"{number}" * 64},
            )
    for member in members:
        workspace.checkpoint(member).write_text("{}")
    return workspace


def _dataset(workspace: Workspace, tables: dict[str, pd.DataFrame]):
    generator = np.random.default_rng(0)
    rows = pd.concat([table.assign(part=part) for part, table in tables.items()], ignore_index=True)
    mates = rows.iloc[[0]].assign(id="train_mate", part="train")
    rows = pd.concat([rows, mates], ignore_index=True)
    n = len(rows)
    table = rows[["id", "label", "lesion_id", "part"]].assign(
        file=rows["id"] + ".jpg",
        sha256="0" * 64,
        age_years=generator.choice(["", "25", "45", "65", "80"], n),
        sex=generator.choice(["", "female", "male"], n),
        site=generator.choice(["back", "face"], n),
        source="made",
    )
    Manifest(table, "none", "none", classes=ISIC2018).save(workspace.manifest)
    manifest = Manifest.load(workspace.manifest)
    # One lesion of the validation images has a photograph in training, as in the published per-image split.
    split = Split(table[["id", "part"]].assign(fold=""), "published", 1, leaks_lesions=True)
    artifact = split.save(workspace.split, manifest)
    return manifest.artifact, artifact
