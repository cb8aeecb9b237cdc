"""What the dataset is like: classes by part, lesions, duplicates, image sizes,
what is not known of patients.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from skinlesion_cli.artifacts.files import atomic_write
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.near_duplicates import Duplicates
from skinlesion_cli.artifacts.split import PARTS, Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data import splits
from skinlesion_cli.data.reading.images import image_size
from skinlesion_cli.errors import ExitCode, ImageError, name_items
from skinlesion_cli.progress import Reporter
from skinlesion_cli.report.plot_dataset import class_distribution
from skinlesion_cli.result import StageResult, Table
from skinlesion_cli.stages.info.settings import InfoSettings

_METADATA = {"age_years": "age", "sex": "sex", "site": "site"}
_SIZES_SHOWN = 5


def run(settings: InfoSettings, reporter: Reporter) -> StageResult:
    """Look at manifest, split and image headers; draw the class distribution beside them.

    Images that are missing or unreadable are named, and make the exit code 4.

    Raises
    ------
    ArtifactError : there is no dataset, or its artifacts are damaged.
    """
    workspace = Workspace(settings.workspace)
    manifest = Manifest.load(workspace.manifest)
    split = Split.load(workspace.split, manifest)
    counts = splits.class_counts(manifest.table, split.table, codes=manifest.classes.codes)
    sizes, problems = _sizes(manifest.table, workspace.images, reporter)
    missing = {name: int((manifest.table[column] == "").sum()) for column, name in _METADATA.items()}
    lesions = _lesions(manifest, split)
    copies = _copies(manifest.table)
    near = _near_duplicates(workspace, split)
    title = f"{len(manifest.table):,} images of {manifest.n_lesions:,} lesions ({split.strategy} split)"
    atomic_write(workspace.class_distribution, class_distribution(counts, title, manifest.classes))
    n_patients = len(set(manifest.table["patient_id"]) - {""})
    in_split = set(split.table["id"])
    left_out = [identity for identity in manifest.table["id"] if identity not in in_split]
    figures: dict[str, Any] = {
        **manifest.figures,
        "patients": n_patients,
        "split": {**split.figures, "class_counts": counts, "left_out": len(left_out)},
        "lesions_by_part": lesions,
        "images_per_lesion": _images_per_lesion(manifest.table),
        "identical_files": copies,
        "near_duplicates": near,
        "image_sizes_px": {f"{width}x{height}": count for (width, height), count in sizes.most_common()},
        "missing_metadata": missing,
        "unreadable_images": len(problems),
        "licence": manifest.licence,
    }
    warnings = [f"unreadable images: {name_items(problems)}"] if problems else []
    if split.leaks_lesions:
        warnings.append("the published split puts lesions on several sides; figures on it are too optimistic")
    return StageResult(
        command="info",
        headline=[f"{title}; {manifest.licence}"],
        figures=figures,
        tables=[
            _class_table(counts, lesions),
            *_source_tables(manifest.table, manifest.classes.codes),
            _facts(figures, sizes),
        ],
        artifacts=[str(workspace.class_distribution)],
        warnings=warnings,
        next_command="skinlesion download" if problems else None,
        exit_code=ExitCode.ARTIFACT if problems else ExitCode.OK,
    )


def _sizes(
    table: pd.DataFrame, images: Path, reporter: Reporter
) -> tuple[Counter[tuple[int, int]], list[str]]:
    sizes: Counter[tuple[int, int]] = Counter()
    problems = []
    with reporter.task("reading image sizes", total=len(table), unit="images") as task:
        for file in table["file"]:
            try:
                sizes[image_size(images / file)] += 1
            except ImageError as error:
                problems.append(f"{file} ({error.message})")
            task.advance()
    return sizes, problems


def _lesions(manifest: Manifest, split: Split) -> dict[str, int]:
    joined = split.table.merge(manifest.table[["id", "lesion_id"]], on="id")
    return {part: int(joined.loc[joined["part"] == part, "lesion_id"].nunique()) for part in PARTS}


def _images_per_lesion(table: pd.DataFrame) -> dict[str, int]:
    """Number of lesions by their number of images."""
    per_lesion = Counter(Counter(table["lesion_id"]).values())
    return {str(images): per_lesion[images] for images in sorted(per_lesion)}


def _copies(table: pd.DataFrame) -> int:
    """Images whose file is, byte for byte, that of another image."""
    return int(table["sha256"].duplicated(keep=False).sum())


def _near_duplicates(workspace: Workspace, split: Split) -> dict[str, int] | None:
    """What the search for near duplicates found; None where this split was made without one."""
    if not workspace.duplicates.is_file():
        return None
    near_duplicates = Duplicates.load(workspace.duplicates)
    if split.artifact is None or near_duplicates.artifact is None:
        return None
    if near_duplicates.artifact.inputs.get("split") != split.artifact.sha256:
        return None
    return {
        "pairs": len(near_duplicates.table),
        "across_lesions": near_duplicates.n_across_lesions,
        "across_parts": near_duplicates.n_across_parts,
    }


def _class_table(counts: Mapping[str, Mapping[str, int]], lesions: Mapping[str, int]) -> Table:
    rows: list[list[object]] = [
        [name, *(f"{counts[part][name]:,}" for part in PARTS)] for name in counts[PARTS[0]]
    ]
    rows.append(["all images", *(f"{sum(counts[part].values()):,}" for part in PARTS)])
    rows.append(["lesions", *(f"{lesions[part]:,}" for part in PARTS)])
    return Table("Images by class and part", ["class", *PARTS], rows)


def _source_tables(table: pd.DataFrame, codes: Sequence[str]) -> list[Table]:
    """Images by class and source; none where all are from one."""
    sources = sorted(set(table["source"]))
    if len(sources) < 2:
        return []
    counts = Counter(zip(table["label"], table["source"], strict=True))
    rows: list[list[object]] = [
        [name, *(f"{counts[name, source]:,}" for source in sources)] for name in codes
    ]
    rows.append(["all images", *(f"{int((table['source'] == source).sum()):,}" for source in sources)])
    return [Table("Images by class and source", ["class", *sources], rows)]


def _facts(figures: Mapping[str, Any], sizes: Counter[tuple[int, int]]) -> Table:
    shown = [f"{width} x {height}: {count:,}" for (width, height), count in sizes.most_common(_SIZES_SHOWN)]
    if len(sizes) > _SIZES_SHOWN:
        rest = sum(sizes.values()) - sum(count for _, count in sizes.most_common(_SIZES_SHOWN))
        shown.append(f"{len(sizes) - _SIZES_SHOWN:,} other sizes: {rest:,}")
    near = figures["near_duplicates"]
    per_lesion = figures["images_per_lesion"]
    rows = [
        ["sources", "; ".join(f"{source}: {count:,}" for source, count in figures["sources"].items())],
        ["patients", f"{figures['patients']:,}" if figures["patients"] else "not known"],
        ["image sizes", "; ".join(shown)],
        [
            "images per lesion",
            "; ".join(f"{images}: {lesions:,} lesions" for images, lesions in per_lesion.items()),
        ],
        ["identical files", f"{figures['identical_files']:,}"],
        [
            "near duplicates",
            "not looked for (skinlesion download --check-duplicates)"
            if near is None
            else f"{near['pairs']:,} pairs; {near['across_lesions']:,} under different lesion ids; "
            f"{near['across_parts']:,} on two sides of the split",
        ],
        ["not known", "; ".join(f"{name}: {count:,}" for name, count in figures["missing_metadata"].items())],
        ["not in the split", f"{figures['split']['left_out']:,}"],
    ]
    return Table("Facts", ["what", "value"], rows)
