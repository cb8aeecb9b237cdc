"""Add labelled images to the dataset, from a list that people filled in or a second dataset;
none that is there moves.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import pandas as pd

from skinlesion_cli.artifacts.class_list import require_same_classes
from skinlesion_cli.artifacts.files import atomic_write, exclusive, sha256_bytes
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.restorable import restorable, restore
from skinlesion_cli.artifacts.split import PARTS, Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.ingest import ingest_images
from skinlesion_cli.data.sources.base import Collection, Record, published_id
from skinlesion_cli.data.sources.registry import read_source, require_there
from skinlesion_cli.data.split_extension import extended
from skinlesion_cli.errors import DataError, UsageError, name_items
from skinlesion_cli.progress import Reporter
from skinlesion_cli.result import StageResult
from skinlesion_cli.stages.download.duplicates import notes_about_copies
from skinlesion_cli.stages.download.stage import DownloadSettings, attribution_text
from skinlesion_cli.stages.download.summary import next_command, sides_table
from skinlesion_cli.taxonomy.class_list import ClassList
from skinlesion_cli.taxonomy.shipped import class_list

# Ids of the ISIC archive name one photograph, whichever dataset it is handed out in;
# other names may come again.
_ARCHIVE_ID = re.compile(r"ISIC_\d{7}")
_NOTHING_YET = "There is no dataset to add to: omit --append, and choose a split, such as --split grouped."


def run(settings: DownloadSettings, reporter: Reporter) -> StageResult:
    """Import the images that are new. Those of a lesion or patient that is there go to its side; all others
    train, with a fold each where the dataset has folds (`split_extension.extended`).

    Raises
    ------
    ArtifactError : there is no dataset yet.
    DataError : nothing is new; labels contradict the dataset's; new images tie different sides together.
    UsageError : without a source, or with options that make a new split.
    """
    source = _appendable(settings)
    workspace = Workspace(settings.workspace)
    classes = _classes_of_dataset(settings, workspace)
    options = settings.source_options(classes)
    collection = read_source(source, settings.source_format, options, settings.source_name)
    with exclusive(workspace.dataset, "download"):
        restore(workspace.manifest, lambda: _dataset(workspace))
        manifest, split = _dataset(workspace)
        if settings.split not in ("official", split.strategy):
            raise UsageError(
                f"the dataset has a split of kind {split.strategy}, which --append keeps",
                "Omit --split, or make a new workspace.",
            )
        known = _sort_out(collection, manifest, reporter)
        if not known.fresh:
            raise DataError(
                f"{source.name} holds no image that the dataset lacks",
                f"{known.n_there + known.n_same_id} of its images are there already.",
            )
        added = ingest_images(
            replace(collection, records=known.fresh), workspace.images, reporter, link=settings.link
        )
        # Before anything is written: images that tie two sides together are refused.
        rows = extended(added, manifest.table, split.table, split.seed, leaks=split.leaks_lesions)
        joined = _joined(manifest, added, collection)
        table = pd.concat([split.table, rows], ignore_index=True)
        split = replace(split, table=table, artifact=None)
        with restorable(workspace.manifest):
            joined.save(workspace.manifest)
            written = Manifest.load(workspace.manifest)
            atomic_write(workspace.attribution, attribution_text(joined))
            split.save(workspace.split, written)
    return _result(workspace, split, collection, known, added, rows, manifest, written)


def _dataset(workspace: Workspace) -> tuple[Manifest, Split]:
    manifest = Manifest.load(workspace.manifest)
    return manifest, Split.load(workspace.split, manifest)


def _classes_of_dataset(settings: DownloadSettings, workspace: Workspace) -> ClassList:
    """The list of the dataset, which new labels must be of."""
    classes = Manifest.load(workspace.manifest, hint=_NOTHING_YET).classes
    if settings.classes is not None:
        require_same_classes(
            {"the dataset": classes, f"--classes {settings.classes}": class_list(settings.classes)},
            "Omit --classes, or make a new workspace.",
        )
    return classes


def _appendable(settings: DownloadSettings) -> Path:
    """The source; refuses settings that --append has no use for."""
    if settings.source is None:
        raise UsageError("--append needs --from", "Example: --from reviewed.csv --append")
    unfit = [
        option
        for option, given in (
            ("--check-duplicates", settings.check_duplicates),
            ("--move-duplicates", settings.move_duplicates),
            ("--dry-run", settings.dry_run),
        )
        if given
    ]
    if unfit:
        raise UsageError(f"--append cannot be combined with {', '.join(unfit)}")
    require_there(settings.source)
    return settings.source


@dataclass(frozen=True)
class _Sorted:
    """Records that are new, and how many are not: of the same content, or of the same archive id."""

    fresh: list[Record] = field(default_factory=list)
    n_there: int = 0
    n_same_id: int = 0
    n_renamed: int = 0


def _sort_out(collection: Collection, manifest: Manifest, reporter: Reporter) -> _Sorted:
    """Tell new records from those that the dataset has, by content and by id."""
    by_content = dict(zip(manifest.table["sha256"], manifest.table["label"], strict=True))
    by_archive_id = {
        identity: label
        for name, label in zip(manifest.table["id"], manifest.table["label"], strict=True)
        if (identity := _archive_id(name))
    }
    taken = set(manifest.table["id"]) | set(manifest.table["file"])
    fresh: list[Record] = []
    n_there = n_same_id = n_renamed = 0
    contradicting, clashing = [], []
    with reporter.task("comparing with the dataset", total=len(collection.records), unit="images") as task:
        for record in collection.records:
            task.advance()
            label = by_content.get(_content_hash(record))
            n_there += label is not None
            if label is None and (label := by_archive_id.get(_archive_id(record.id))):
                n_same_id += 1
            if label is not None:
                if label != record.label:
                    contradicting.append(f"{record.id} ({label} there, {record.label} here)")
                continue
            if record.id in taken or record.file in taken:
                record = _renamed(record, record.source or collection.name)
                n_renamed += 1
                if record.id in taken or record.file in taken:
                    clashing.append(record.id)
            fresh.append(record)
    if contradicting:
        raise DataError(
            f"these images are in the dataset with another label: {name_items(contradicting)}",
            "Which one is right? Correct the new table, or the source of the dataset.",
        )
    if clashing:
        raise DataError(
            f"these names belong to other images of the dataset: {name_items(clashing)}",
            "Rename the files, or give the new dataset another name with --source-name.",
        )
    return _Sorted(fresh, n_there, n_same_id, n_renamed)


def _content_hash(record: Record) -> str:
    try:
        return sha256_bytes(record.origin.read())
    except Exception:  # whatever is wrong with it, importing it names the image and the reason
        return ""


def _archive_id(name: str) -> str:
    """The id in the ISIC archive that an image's id ends in; empty where it is none."""
    stem = published_id(PurePosixPath(name).name)
    return stem if _ARCHIVE_ID.fullmatch(stem) else ""


def _renamed(record: Record, source: str) -> Record:
    """The record with its source before its id and file,
    and before its lesion id where that was its own id.
    """
    identity = f"{source}/{record.id}"
    own_lesion = record.lesion_id == record.id
    return replace(
        record,
        id=identity,
        file=f"{source}/{record.file}",
        lesion_id=identity if own_lesion else record.lesion_id,
    )


def _joined(manifest: Manifest, added: pd.DataFrame, collection: Collection) -> Manifest:
    licence, attribution = manifest.licence, manifest.attribution
    if collection.licence not in licence.split("; "):
        licence = f"{licence}; {collection.licence}"
    if collection.attribution not in attribution:
        attribution = f"{attribution}\n{collection.attribution}"
    table = pd.concat([manifest.table, added], ignore_index=True)
    return Manifest(table, licence, attribution, classes=manifest.classes)


def _result(
    workspace: Workspace,
    split: Split,
    collection: Collection,
    known: _Sorted,
    added: pd.DataFrame,
    rows: pd.DataFrame,
    before: Manifest,
    after: Manifest,
) -> StageResult:
    labels, parts = Counter(added["label"]), Counter(rows["part"])
    trained = workspace.trained()
    # A network that is there is replaced only with --fresh.
    following = (
        f"{next_command(split, trained[0].split('-fold')[0])} --fresh" if trained else next_command(split)
    )
    counted = ", ".join(f"{labels[name]:,} {name}" for name in after.classes.codes if labels[name])
    sources = Counter(after.table["source"])
    return StageResult(
        command="download",
        headline=[
            f"{len(added):,} images of {collection.name} added ({counted}); "
            f"{known.n_there:,} were there already",
            f"the dataset now has {len(after.table):,} images of {after.n_lesions:,} lesions: "
            + ", ".join(f"{count:,} of {source}" for source, count in sorted(sources.items())),
        ],
        figures={
            "added": len(added),
            "already_there": known.n_there,
            "same_archive_id": known.n_same_id,
            "renamed": known.n_renamed,
            "labels": {name: labels[name] for name in after.classes.codes},
            "parts": {part: parts[part] for part in PARTS},
            "images": len(after.table),
            "sources": dict(sorted(sources.items())),
        },
        tables=[sides_table("Added images by class and side", added, rows, after.classes.codes)],
        artifacts=[str(workspace.manifest), str(workspace.split)],
        warnings=[
            *collection.notes,
            *_notes(known, added, rows, before),
            *notes_about_copies(after, split, "give them one lesion id"),
        ],
        next_command=following,
    )


def _notes(known: _Sorted, added: pd.DataFrame, rows: pd.DataFrame, before: Manifest) -> list[str]:
    notes = []
    if known.n_same_id:
        notes.append(
            f"{known.n_same_id:,} images have the ISIC id of an image that is there (the same photograph "
            "in another "
            "file) and were skipped"
        )
    if known.n_renamed:
        notes.append(
            f"{known.n_renamed:,} images have the name of another image that is there; their ids begin "
            "with the name "
            "of their source"
        )
    patients = set(before.table["patient_id"]) - {""}
    mates = added["lesion_id"].isin(set(before.table["lesion_id"])) | added["patient_id"].isin(patients)
    part_of = dict(zip(rows["id"], rows["part"], strict=True))
    held_out = sum(part_of[identity] != "train" for identity in added.loc[mates, "id"])
    if mates.any():
        notes.append(
            f"{int(mates.sum()):,} new images show lesions or patients that are there, and went to their "
            "side "
            f"({held_out:,} to validation or test)"
        )
    aside = sum(part_of[identity] != "train" for identity in added.loc[~mates, "id"])
    if aside:
        notes.append(
            f"{aside:,} new images are set aside for validation or test by their source, and went there"
        )
    return notes
