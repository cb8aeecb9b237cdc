"""The dataset and the settings of the trainings that tests run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages.train import stage as train
from tests.training.small import small_recipe


@pytest.fixture(scope="module")
def dataset(generated, tmp_path_factory) -> Path:
    """A workspace with generated images, split by lesion, in three folds, with some metadata."""
    from skinlesion_cli.stages.download import stage as download

    root = tmp_path_factory.mktemp("training") / "workspace"
    download.run(
        download.DownloadSettings(workspace=root, source=generated, split="grouped"), SilentReporter()
    )
    workspace = Workspace(root)
    manifest = Manifest.load(workspace.manifest)
    table = manifest.table.assign(age_years="55", sex=["male", "female", ""] * 35, site="back")
    replace(manifest, table=table, artifact=None).save(workspace.manifest)
    manifest = Manifest.load(workspace.manifest)
    old = pd.read_csv(next(root.glob("dataset/split.table-*.csv")), dtype=str, keep_default_na=False)
    lesion = dict(zip(table["id"], table["lesion_id"], strict=True))
    order = {name: index for index, name in enumerate(sorted(set(lesion.values())))}
    folds = [
        "" if part == "test" else str(order[lesion[identity]] % 3)
        for identity, part in zip(old["id"], old["part"], strict=True)
    ]
    split = Split(old.assign(fold=folds), "grouped", 42)
    split.save(workspace.split, manifest)
    return root


@pytest.fixture
def config(dataset, tmp_path) -> train.TrainSettings:
    """A training in a workspace of its own that shares the images."""
    root = tmp_path / "workspace"
    root.mkdir()
    (root / "dataset").symlink_to(dataset / "dataset")
    return train.TrainSettings(
        workspace=root, arch="tiny", recipe=small_recipe(), weights="none", device="cpu", workers=0
    )
