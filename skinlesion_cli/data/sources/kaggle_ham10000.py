"""HAM10000 as Kaggle and the Harvard Dataverse hand it out: HAM10000_metadata and the images,
however they lie.

The metadata is a CSV, a tab-separated `.tab`, or has no suffix. Images are in the folders or zips
HAM10000_images_part_1 and _2 (twice nested where an archive was unpacked into a folder of its name), in one
folder of any name, or beside the metadata. Part 1 or part 2 alone is read as the half that it is.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePosixPath

from skinlesion_cli.artifacts import user_tables
from skinlesion_cli.data.reading.archives import image_members, open_archive
from skinlesion_cli.data.reading.listing import list_images
from skinlesion_cli.data.sources import isic2018
from skinlesion_cli.data.sources.base import (
    Collection,
    FileOrigin,
    Record,
    SourceOptions,
    ZipOrigin,
    known_id,
    label_hint,
    refuse_duplicates,
)
from skinlesion_cli.data.sources.isic2018 import ATTRIBUTION, LICENCE, METADATA, described
from skinlesion_cli.errors import ArtifactError, DataError, name_items
from skinlesion_cli.taxonomy.class_list import ClassList

_METADATA_STEM = "ham10000_metadata"
_METADATA_SUFFIXES = ("", ".csv", ".tab", ".tsv", ".txt")
_IMAGES = "ham10000_images_part"
_PARTS = ("1", "2")


def recognise(path: Path, classes: ClassList) -> bool:
    """Whether a folder holds the metadata and images, and is not the challenge's own layout."""
    if not path.is_dir() or _metadata_file(path) is None:
        return False
    if _image_places(path):
        # The Dataverse adds the challenge's test part; its training part comes from the challenge alone.
        return not (path / "ISIC2018_Task3_Training_GroundTruth.csv").is_file()
    return not isic2018.recognise(path, classes) and bool(list_images(path).files)


def read(folder: Path, options: SourceOptions) -> Collection:
    """Read it; all images count as training images, as in the challenge.

    Raises
    ------
    DataError : images without a file or with an unknown diagnosis; two different images of one name.
    """
    file = _metadata_file(folder)
    if file is None:
        raise DataError(f"{METADATA} is missing in {folder}")
    metadata = _metadata(file)
    images = _images(folder, options)
    labels = {identity: options.class_of(row.get("dx", "")) for identity, row in metadata.items()}
    unknown = [
        f"{identity} ({metadata[identity].get('dx', '')!r})"
        for identity, label in labels.items()
        if label is None
    ]
    if unknown:
        raise DataError(
            f"{file.name}: these images have a dx that is not known: {name_items(unknown)}",
            label_hint(options.classes),
        )
    notes = []
    missing = sorted(set(metadata) - set(images))
    absent = _absent_part(folder)
    if missing and not (images and (options.allow_missing or absent)):
        raise DataError(
            f"images named in {file.name} have no file: {name_items(missing)}",
            "Expected them in HAM10000_images_part_1 and HAM10000_images_part_2 (folders or zips), or "
            "in one folder, "
            f"in {folder}; --allow-missing skips them.",
        )
    if missing:
        why = f" (HAM10000_images_part_{absent} is not there)" if absent else ""
        notes.append(f"{len(missing):,} of {len(metadata):,} images have no file{why} and were skipped")
    records: list[Record] = [
        described(identity, images[identity], label, known_id(row["lesion_id"]) or identity, row, "train")
        for identity, row in metadata.items()
        if identity in images and (label := labels[identity])
    ]
    if not records:
        raise DataError(f"{folder} holds no image that {file.name} names")
    if surplus := len(set(images) - set(metadata)):
        notes.append(f"{surplus:,} images are not in {file.name} and were skipped")
    return Collection("ham10000", records, LICENCE, ATTRIBUTION, tuple(notes))


def _metadata_file(folder: Path) -> Path | None:
    if not folder.is_dir():
        return None
    found = {path.suffix.lower(): path for path in folder.iterdir() if path.stem.lower() == _METADATA_STEM}
    return next(
        (found[suffix] for suffix in _METADATA_SUFFIXES if suffix in found and found[suffix].is_file()), None
    )


def _metadata(file: Path) -> dict[str, dict[str, str]]:
    """Image id (without a suffix that some copies have) -> its row."""
    cells = user_tables.read(file, file.name).cells
    cells = cells.rename(columns={header: header.strip().lower() for header in cells.columns})
    lacking = [name for name in ("image_id", "lesion_id", "dx") if name not in cells.columns]
    if lacking:
        raise ArtifactError(f"{file.name} lacks the columns {', '.join(lacking)}")
    ids = [identity.removesuffix(".jpg") for identity in cells["image_id"]]
    refuse_duplicates(ids, file.name)
    return dict(zip(ids, cells.to_dict("records"), strict=True))


def _image_places(folder: Path) -> list[Path]:
    """Folders and zips of the two parts, sorted."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.name.lower().startswith(_IMAGES) and (path.is_dir() or path.suffix.lower() == ".zip")
    )


def _absent_part(folder: Path) -> str | None:
    """The part that is not there where the other one is."""
    there = {
        part
        for place in _image_places(folder)
        for part in _PARTS
        if part in place.stem.lower().removeprefix(_IMAGES)
    }
    return next((part for part in _PARTS if part not in there), None) if there else None


def _images(folder: Path, options: SourceOptions) -> dict[str, FileOrigin | ZipOrigin]:
    origins: dict[str, list[FileOrigin | ZipOrigin]] = defaultdict(list)
    places = [options.images] if options.images else _image_places(folder) or [folder]
    for place in places:
        if place.is_dir():
            for file in list_images(place).files:
                origins[PurePosixPath(file).stem].append(FileOrigin(place / file))
        elif not place.with_suffix("").is_dir():
            archive = open_archive(place, verify_content=not options.archives_verified)
            for identity, member in image_members(archive).items():
                origins[identity].append(ZipOrigin(archive, member))
    # Kaggle's archive once held every image twice, in folders that differ in case only.
    different = [
        identity
        for identity, copies in origins.items()
        if len(copies) > 1 and len({origin.read() for origin in copies}) > 1
    ]
    if different:
        raise DataError(f"different images of one name: {name_items(sorted(different))}")
    return {identity: copies[0] for identity, copies in origins.items()}
