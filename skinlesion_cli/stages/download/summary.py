"""What `download` says when it is done, and of what it would fetch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from skinlesion_cli.artifacts.class_list import as_figures
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.split import PARTS, Split
from skinlesion_cli.data import splits
from skinlesion_cli.data.download.isic2018_files import Planned
from skinlesion_cli.data.near_duplicates import Pair
from skinlesion_cli.result import StageResult, Table


def next_command(split: Split, arch: str = "efficientnet_lite0") -> str:
    """The training that comes next."""
    return f"skinlesion train --arch {arch}" + (f" --folds {split.n_folds}" if split.n_folds else "")


def dry_run_result(planned: Sequence[Planned]) -> StageResult:
    """What would be fetched, file by file."""
    missing = sum(item.missing_bytes for item in planned)
    rows = [[item.file.name, f"{item.total_bytes:,}", f"{item.missing_bytes:,}"] for item in planned]
    return StageResult(
        command="download",
        headline=[f"would fetch {missing / 1e6:,.1f} MB from {planned[0].urls[0].rpartition('/')[0]}/"],
        figures={
            "dry_run": True,
            "missing_bytes": missing,
            "files": [
                {
                    "name": item.file.name,
                    "urls": list(item.urls),
                    "bytes": item.total_bytes,
                    "missing_bytes": item.missing_bytes,
                }
                for item in planned
            ],
        },
        tables=[Table("Files", ["file", "bytes", "to fetch"], rows)],
        next_command="skinlesion download",
    )


def result(
    manifest: Manifest,
    split: Split,
    artifacts: Sequence[str],
    notes: Sequence[str],
    pairs: Sequence[Pair] | None,
) -> StageResult:
    """What was imported: images by class, part and fold, and where they are from.

    `artifacts` are the files that were written; `pairs` are near duplicates, None where none were looked for.
    """
    counts = splits.class_counts(manifest.table, split.table, codes=manifest.classes.codes)
    rows = [[name, *(counts[part][name] for part in PARTS)] for name in manifest.classes.codes]
    rows.append(["all", *(sum(counts[part].values()) for part in PARTS)])
    folds = f", {split.n_folds} folds in train" if split.n_folds else ""
    sources = Counter(manifest.table["source"])
    headline = f"{len(manifest.table):,} images of {manifest.n_lesions:,} lesions; {manifest.licence}"
    if len(sources) > 1:
        headline += "; " + ", ".join(f"{count:,} of {source}" for source, count in sorted(sources.items()))
    tables = [
        Table(
            f"Images by class and part ({split.strategy}, seed {split.seed}{folds})", ["class", *PARTS], rows
        )
    ]
    if split.n_folds:
        tables.append(
            sides_table("Images by class and fold", manifest.table, split.table, manifest.classes.codes)
        )
    return StageResult(
        command="download",
        headline=[headline],
        figures={
            **manifest.figures,
            "classes": as_figures(manifest.classes),
            "split": {**split.figures, "class_counts": counts},
            "near_duplicate_pairs": None if pairs is None else len(pairs),
        },
        tables=tables,
        artifacts=artifacts,
        warnings=notes,
        next_command=next_command(split),
    )


def sides_table(title: str, images: pd.DataFrame, split_table: pd.DataFrame, codes: Sequence[str]) -> Table:
    """Images by class and side: folds, and parts outside of them."""
    side = ("fold " + split_table["fold"]).where(split_table["fold"] != "", split_table["part"])
    side_of = dict(zip(split_table["id"], side, strict=True))
    counts = Counter(
        (label, side_of[identity])
        for identity, label in zip(images["id"], images["label"], strict=True)
        if identity in side_of
    )
    sides = sorted(set(side_of.values()), key=lambda name: (not name.startswith("fold"), len(name), name))
    cells = [[label, *(counts[label, name] for name in sides)] for label in codes]
    return Table(title, ["class", *sides], cells)
