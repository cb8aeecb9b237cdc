"""Import a dataset into the workspace: images, manifest and split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, NonNegativeInt, model_validator

from skinlesion_cli.artifacts.class_list import StoredClassList
from skinlesion_cli.artifacts.files import atomic_write, exclusive
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.near_duplicates import Duplicates
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.settings import StageSettings, one_of
from skinlesion_cli.data import splits
from skinlesion_cli.data.download import isic2018_files
from skinlesion_cli.data.download.http import Patience
from skinlesion_cli.data.download.isic2018_files import OFFICIAL_FILES, OfficialFile
from skinlesion_cli.data.groups import split_groups
from skinlesion_cli.data.ingest import ingest_images, intact
from skinlesion_cli.data.near_duplicates import Pair, find_pairs, merged_lesions
from skinlesion_cli.data.sources.base import IMAGE_TYPES, SourceOptions, parse_class_map
from skinlesion_cli.data.sources.isic2018 import METADATA
from skinlesion_cli.data.sources.isic2018 import PARTS as OFFICIAL_PARTS
from skinlesion_cli.data.sources.registry import SOURCES, read_source, require_there
from skinlesion_cli.errors import SkinLesionError, name_items
from skinlesion_cli.progress import Reporter
from skinlesion_cli.result import StageResult, percent
from skinlesion_cli.stages.download import summary
from skinlesion_cli.stages.download.duplicates import notes_about, notes_about_copies, pair_table
from skinlesion_cli.taxonomy.class_list import ClassList
from skinlesion_cli.taxonomy.shipped import DEFAULT, class_list


class DownloadSettings(StageSettings):
    """What to import, and how to split it.

    `source` is a copy on disk; without one the official files are fetched. `parts` are those of the official
    data (`isic2018_files.PARTS`). `classes` is the name of a class list or a YAML file; None: `isic2018`.
    """

    workspace: Path
    source: Path | None = None
    source_format: Annotated[str, one_of(SOURCES, also=("auto",))] = "auto"
    parts: Annotated[tuple[Annotated[str, one_of(isic2018_files.PARTS)], ...], Field(min_length=1)] = (
        isic2018_files.PARTS
    )
    base_url: str | None = None
    dry_run: bool = False
    ignore_hashes: bool = False
    link: bool = False
    scc_as_akiec: bool = False
    class_map: tuple[str, ...] = ()
    images: Path | None = None
    allow_missing: bool = False
    image_types: Annotated[str, one_of(IMAGE_TYPES)] = "dermoscopic"
    source_name: str | None = None
    classes: str | None = None
    split: Annotated[str, one_of(splits.STRATEGIES)] = "official"
    n_folds: Annotated[int, Field(ge=2, le=100)] = 5
    seed: NonNegativeInt = 42
    check_duplicates: bool = False
    move_duplicates: bool = False

    @model_validator(mode="after")
    def _options_go_together(self) -> Self:
        if self.move_duplicates and self.split == "published":
            raise ValueError(
                "--move-duplicates cannot be used with --split published, which is kept bit for bit"
            )
        if self.dry_run and self.source is not None:
            raise ValueError("--dry-run is about fetching; with --from nothing is fetched")
        return self

    def source_options(self, classes: ClassList) -> SourceOptions:
        """What the user decided about reading the source (UsageError where --map makes no sense)."""
        return SourceOptions(
            classes=classes,
            scc_as_akiec=self.scc_as_akiec,
            class_map=parse_class_map(self.class_map, classes),
            images=self.images,
            allow_missing=self.allow_missing,
            image_types=self.image_types,
        )


def run(
    settings: DownloadSettings,
    reporter: Reporter,
    *,
    files: Sequence[OfficialFile] = OFFICIAL_FILES,
    patience: Patience | None = None,
) -> StageResult:
    """Fetch or read a source, import its images, and write the manifest and the split."""
    workspace = Workspace(settings.workspace)
    if settings.dry_run:
        return _dry_run(
            settings, workspace, files, patience or Patience(tries=1, timeout_s=5.0, answer_s=15.0)
        )
    if settings.source is not None:
        # Before anything is made: a slip of the pen must not leave an empty workspace behind.
        require_there(settings.source)
    notes: list[str] = []
    classes = class_list(settings.classes or DEFAULT)
    with exclusive(workspace.dataset, "download"):
        before = _sources_by_id(workspace)
        manifest = _dataset(settings, classes, workspace, reporter, files, patience or Patience(), notes)
        replaced = Counter(before[identity] for identity in before.keys() - set(manifest.table["id"]))
        if replaced:
            named = ", ".join(f"{count:,} of {source}" for source, count in sorted(replaced.items()))
            notes.append(
                f"the dataset that was there is replaced; images that are no longer in it: {named} "
                "(--append adds to it)"
            )
        pairs = None
        if settings.check_duplicates or settings.move_duplicates:
            rows = list(zip(manifest.table["id"], manifest.table["file"], strict=True))
            pairs = find_pairs(rows, workspace.images, reporter)
        split = _split(settings, manifest, pairs, notes)
        split = replace(split, leaking_images=_leaks(split, manifest, notes))
        artifact = split.save(workspace.split, manifest)
        artifacts = [str(workspace.classes), str(workspace.manifest), str(workspace.split)]
        if pairs is not None:
            near_duplicates = Duplicates(pair_table(pairs, manifest, split), settings.move_duplicates)
            near_duplicates.save(
                workspace.duplicates, inputs={"manifest": artifact.inputs["manifest"], "split": artifact}
            )
            artifacts.append(str(workspace.duplicates))
            notes += notes_about(near_duplicates)
        if pairs is None:
            # Free of charge; the search for near duplicates names these too.
            notes += notes_about_copies(manifest, split, "--move-duplicates keeps them together")
    return summary.result(manifest, split, artifacts, notes, pairs)


def _sources_by_id(workspace: Workspace) -> dict[str, str]:
    """Image id -> source of the dataset that is there; empty where there is none that can be read."""
    try:
        table = Manifest.load(workspace.manifest).table
    except SkinLesionError:
        return {}
    return dict(zip(table["id"], table["source"], strict=True))


def attribution_text(manifest: Manifest) -> bytes:
    """Content of the file beside the images: their licence, and whom to cite."""
    return f"Licence: {manifest.licence}\n\n{manifest.attribution}\n".encode()


def _dry_run(
    settings: DownloadSettings, workspace: Workspace, files: Sequence[OfficialFile], patience: Patience
) -> StageResult:
    planned = isic2018_files.plan(
        _wanted(settings, files), workspace.archives, _addresses(settings), patience, ask=True
    )
    return summary.dry_run_result(planned)


def _wanted(settings: DownloadSettings, files: Sequence[OfficialFile]) -> list[OfficialFile]:
    return [file for file in files if file.part in settings.parts]


def _addresses(settings: DownloadSettings) -> tuple[str, ...]:
    return isic2018_files.BASE_URLS if settings.base_url is None else (settings.base_url,)


def _dataset(
    settings: DownloadSettings,
    classes: ClassList,
    workspace: Workspace,
    reporter: Reporter,
    files: Sequence[OfficialFile],
    patience: Patience,
    notes: list[str],
) -> Manifest:
    """The manifest of a dataset whose images are all in the workspace."""
    wanted = {part for name, part in OFFICIAL_PARTS.items() if name.lower() in settings.parts}
    options = replace(settings.source_options(classes), archives_verified=settings.source is None)
    if settings.source is None:
        there = _already_there(workspace, wanted, classes, reporter)
        if there is not None:
            reporter.note("the dataset is complete: nothing is fetched")
            return there
        planned = isic2018_files.plan(
            _wanted(settings, files), workspace.archives, _addresses(settings), patience, ask=False
        )
        isic2018_files.require_space(planned, workspace.archives, workspace.images)
        notes += isic2018_files.fetch_all(
            planned, workspace.archives, reporter, patience, ignore_hashes=settings.ignore_hashes
        )
    collection = read_source(
        settings.source or workspace.archives,
        settings.source_format if settings.source is not None else "isic2018",
        options,
        settings.source_name,
    ).only(wanted)
    notes += collection.notes
    table = ingest_images(collection, workspace.images, reporter, link=settings.link)
    manifest = Manifest(table, collection.licence, collection.attribution, classes=classes)
    StoredClassList(classes).save(workspace.classes)
    atomic_write(workspace.attribution, attribution_text(manifest))
    manifest.save(workspace.manifest)
    return Manifest.load(workspace.manifest)


def _already_there(
    workspace: Workspace, wanted: set[str], classes: ClassList, reporter: Reporter
) -> Manifest | None:
    """The manifest on disk, if it is of the official data, has the wanted parts and every image is intact."""
    if not workspace.manifest.is_file():
        return None
    manifest = Manifest.load(workspace.manifest)
    table = manifest.table
    fits = (
        manifest.classes == classes and set(table["source"]) == {"isic2018"} and set(table["part"]) == wanted
    )
    # Metadata that the user has put beside the archives since then is worth reading.
    news = (workspace.archives / METADATA).is_file() and (table["age_years"] == "").all()
    return manifest if fits and not news and intact(table, workspace.images, reporter) else None


def _split(
    settings: DownloadSettings, manifest: Manifest, pairs: Sequence[Pair] | None, notes: list[str]
) -> Split:
    images = manifest.table
    if settings.move_duplicates and pairs:
        lesion_of = merged_lesions(dict(zip(images["id"], images["lesion_id"], strict=True)), pairs)
        images = images.assign(lesion_id=images["id"].map(lesion_of))
    sides = splits.make(
        settings.split,
        images,
        settings.seed,
        settings.n_folds,
        leave_out_overlap=settings.move_duplicates,
        codes=manifest.classes.codes,
    )
    if sides.left_out:
        notes.append(
            "excluded from training as near duplicates of official validation or test images: "
            f"{name_items(sides.left_out)}"
        )
    notes += splits.gaps(images, sides, codes=manifest.classes.codes)
    if "test" not in sides.parts.values():
        hint = (
            ""
            if settings.split == "grouped"
            else "; --split grouped sets a fifth of the lesions aside for the test"
        )
        notes.append(f"there are no test images{hint}")
    table = splits.table(sides.parts, sides.folds)
    return Split(table, settings.split, settings.seed, leaks_lesions=settings.split == "published")


def _leaks(split: Split, manifest: Manifest, notes: list[str]) -> dict[str, int]:
    """How many images leak; only the published split may have any (the guard refuses all others)."""
    if not split.leaks_lesions:
        return {"val": 0, "test": 0}
    parts = dict(zip(split.table["id"], split.table["part"], strict=True))
    group_of = dict(zip(manifest.table["id"], split_groups(manifest.table), strict=True))
    leaking = {part: len(splits.leaking_images(parts, group_of, part)) for part in ("val", "test")}
    n_test = Counter(parts.values())["test"]
    notes.append(
        f"the published split ignores lesions and patients: {leaking['test']:,} of {n_test:,} test images "
        f"({percent(leaking['test'] / max(n_test, 1), 0)}) show one that is in train or validation too, and "
        f"{leaking['val']:,} validation images one that is in train; figures on it are too optimistic"
    )
    return leaking
