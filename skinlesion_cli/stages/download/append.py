"""Add newly labelled images to the dataset, without touching what validation and test are made of."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pandas as pd

from skinlesion_cli.artifacts.files import exclusive, sha256_bytes
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.split import PARTS, Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.ingest import import_images
from skinlesion_cli.data.sources.base import Collection, Record
from skinlesion_cli.data.sources.registry import read_source
from skinlesion_cli.errors import DataError, UsageError, name_items
from skinlesion_cli.progress import Reporter
from skinlesion_cli.stages.download.stage import DownloadSettings
from skinlesion_cli.stages.result import StageResult
from skinlesion_cli.taxonomy import CLASS_NAMES


def run(config: DownloadSettings, reporter: Reporter) -> StageResult:
    """Bring in the images that are new; they go to training, or where their lesion is already.

    Raises
    ------
    ArtifactError : there is no dataset yet.
    DataError : an id is taken by another image, or a label contradicts the dataset's.
    """
    if config.source is None:
        raise UsageError("--append needs --from", "Example: --from reviewed.csv --append")
    workspace = Workspace(config.workspace)
    collection = read_source(config.source, config.source_format, config.source_options, config.source_name)
    with exclusive(workspace.dataset, "download"):
        manifest = Manifest.load(workspace.manifest)
        split = Split.load(workspace.split, manifest)
        fresh, n_there = _fresh(collection, manifest)
        if not fresh:
            raise DataError(
                f"{config.source.name} holds no image that the dataset lacks",
                f"{n_there} of its images are there already.",
            )
        brought = import_images(
            replace(collection, records=fresh), workspace.images, reporter, link=config.link
        )
        table = pd.concat([manifest.table, brought], ignore_index=True)
        replace(manifest, table=table, artifact=None).save(workspace.manifest)
        written = Manifest.load(workspace.manifest)
        rows = _sides(brought, manifest, split)
        joined = pd.concat([split.table, rows], ignore_index=True)
        replace(split, table=joined, artifact=None).save(workspace.split, written)
    labels, parts = Counter(brought["label"]), Counter(rows["part"])
    counted = ", ".join(f"{labels[name]} {name}" for name in CLASS_NAMES if labels[name])
    held_out = parts["val"] + parts["test"]
    notes = list(collection.notes)
    if held_out:
        notes.append(f"{held_out} new images show lesions of validation or test, and went there")
    return StageResult(
        command="download",
        headline=[f"{len(brought)} images added ({counted}); {n_there} were there already"],
        figures={
            "added": len(brought),
            "already_there": n_there,
            "labels": {name: labels[name] for name in CLASS_NAMES},
            "parts": {part: parts[part] for part in PARTS},
            "images": len(written.table),
        },
        artifacts=[str(workspace.manifest), str(workspace.split)],
        warnings=notes,
        next_command="skinlesion train --arch efficientnet_lite0",
    )


def _fresh(collection: Collection, manifest: Manifest) -> tuple[list[Record], int]:
    """Records whose content the dataset lacks, and how many it has already."""
    label_of = dict(zip(manifest.table["sha256"], manifest.table["label"], strict=True))
    taken = set(manifest.table["id"]) | set(manifest.table["file"])
    fresh, there, contradicting = [], 0, []
    for record in collection.records:
        known = label_of.get(sha256_bytes(record.origin.read()))
        if known is None:
            fresh.append(record)
            continue
        there += 1
        if known != record.label:
            contradicting.append(f"{record.id} ({known} there, {record.label} here)")
    if contradicting:
        raise DataError(
            f"these images are in the dataset with another label: {name_items(contradicting)}",
            "Which one is right? Correct the list, or the source of the dataset.",
        )
    clashing = [record.id for record in fresh if record.id in taken or record.file in taken]
    if clashing:
        raise DataError(
            f"these names belong to other images of the dataset: {name_items(clashing)}", "Rename the files."
        )
    return fresh, there


def _sides(brought: pd.DataFrame, manifest: Manifest, split: Split) -> pd.DataFrame:
    """Part and fold of the new images: those of their lesion, or training (folds in turn)."""
    joined = split.table.merge(manifest.table[["id", "lesion_id"]], on="id")
    side_of = {
        lesion: (part, fold)
        for lesion, part, fold in zip(joined["lesion_id"], joined["part"], joined["fold"], strict=True)
    }
    n_folds, turn = split.n_folds, 0
    rows = []
    for identity, lesion in zip(brought["id"], brought["lesion_id"], strict=True):
        if lesion not in side_of:
            side_of[lesion] = ("train", str(turn % n_folds) if n_folds else "")
            turn += 1
        rows.append((identity, *side_of[lesion]))
    return pd.DataFrame(rows, columns=list(Split.COLUMNS), dtype=str)
