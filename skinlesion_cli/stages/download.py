"""Bring a dataset into the workspace: images, manifest and split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from skinlesion_cli.artifacts import manifest as manifests
from skinlesion_cli.artifacts import split as splits_on_disk
from skinlesion_cli.artifacts.files import exclusive
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.split import PARTS, Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.schema import Frozen
from skinlesion_cli.data import splits
from skinlesion_cli.data.importing import import_images
from skinlesion_cli.data.sources import isic2018
from skinlesion_cli.errors import UsageError
from skinlesion_cli.progress import Reporter
from skinlesion_cli.stages.result import StageResult, Table
from skinlesion_cli.taxonomy import CLASS_NAMES

STRATEGIES = {"official": splits.official, "grouped": splits.grouped}


class DownloadConfig(Frozen):
    """What to bring in, and how to split it. `source` is a folder in the official layout."""

    workspace: Path
    source: Path
    split: str = "official"
    seed: int = 42
    link: bool = False


def run(config: DownloadConfig, reporter: Reporter) -> StageResult:
    """Read the source, bring its images in, write manifest and split."""
    if config.split not in STRATEGIES:
        raise UsageError(f"no way to split named {config.split!r}", "Known: " + ", ".join(STRATEGIES))
    if not config.source.is_dir():
        raise UsageError(f"there is no folder {config.source}")
    workspace = Workspace(config.workspace)
    with exclusive(workspace.dataset, "download"):
        collection = isic2018.read(config.source)
        table = import_images(collection, workspace.images, reporter, link=config.link)
        manifests.write(workspace.manifest, Manifest(table, collection.licence, collection.attribution))
        manifest = manifests.read(workspace.manifest)
        parts = STRATEGIES[config.split](manifest.table, config.seed)
        split = Split(splits.table(parts), config.split, config.seed)
        splits_on_disk.write(workspace.split, split, manifest)
    return _result(workspace, manifest, split, collection.notes)


def _result(workspace: Workspace, manifest: Manifest, split: Split, notes: Sequence[str]) -> StageResult:
    part_of = dict(zip(split.table["id"], split.table["part"], strict=True))
    pairs = Counter(
        (label, part_of[identity])
        for identity, label in zip(manifest.table["id"], manifest.table["label"], strict=True)
        if identity in part_of
    )
    rows = [[name, *(pairs[name, part] for part in PARTS)] for name in CLASS_NAMES]
    rows.append(["all", *(sum(pairs[name, part] for name in CLASS_NAMES) for part in PARTS)])
    return StageResult(
        command="download",
        headline=[f"{len(manifest.table):,} images of {manifest.n_lesions:,} lesions; {manifest.licence}"],
        figures={
            "images": len(manifest.table),
            "lesions": manifest.n_lesions,
            "class_counts": manifest.class_counts,
            "split": {
                "strategy": split.strategy,
                "seed": split.seed,
                "class_counts": {part: {name: pairs[name, part] for name in CLASS_NAMES} for part in PARTS},
            },
        },
        tables=[
            Table(f"Images by class and part ({split.strategy}, seed {split.seed})", ["class", *PARTS], rows)
        ],
        artifacts=[str(workspace.manifest), str(workspace.split)],
        warnings=notes,
        next_command="skinlesion train --arch efficientnet_lite0",
    )
