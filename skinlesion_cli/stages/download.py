"""Bring a dataset into the workspace: images, manifest and split."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from skinlesion_cli.artifacts import manifest as manifests
from skinlesion_cli.artifacts import split as splits_on_disk
from skinlesion_cli.artifacts.files import exclusive
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.schema import Frozen
from skinlesion_cli.data import splits
from skinlesion_cli.data.importing import import_images
from skinlesion_cli.data.sources import isic2018
from skinlesion_cli.errors import UsageError
from skinlesion_cli.progress import Reporter


class DownloadConfig(Frozen):
    """What to bring in, and how to split it. `source` is a folder in the official layout."""

    workspace: Path
    source: Path
    split: Literal["official", "grouped"] = "official"
    seed: int = 42
    link: bool = False


def run(config: DownloadConfig, reporter: Reporter) -> tuple[Manifest, Split]:
    """Read the source, bring its images in, write manifest and split."""
    if not config.source.is_dir():
        raise UsageError(f"there is no folder {config.source}")
    workspace = Workspace(config.workspace)
    with exclusive(workspace.dataset, "download"):
        collection = isic2018.read(config.source)
        for note in collection.notes:
            reporter.note(note)
        table = import_images(collection, workspace.images, reporter, link=config.link)
        manifest = Manifest(table, collection.licence, collection.attribution)
        artifact = manifests.write(workspace.manifest, manifest)
        manifest = manifests.read(workspace.manifest)
        strategy = {"official": splits.official, "grouped": splits.grouped}[config.split]
        split = Split(splits.table(strategy(manifest.table, config.seed)), config.split, config.seed)
        splits_on_disk.write(workspace.split, split, manifest)
    return manifest, splits_on_disk.read(workspace.split, manifest)
