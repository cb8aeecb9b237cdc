"""HAM10000 as Kaggle and the Harvard Dataverse hand it out: two image folders and HAM10000_metadata.csv."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from skinlesion_cli.data.reading.listing import list_images
from skinlesion_cli.data.sources.base import Collection, FileOrigin, Record, SourceOptions, known_class
from skinlesion_cli.data.sources.isic2018 import ATTRIBUTION, LICENCE, METADATA, described, read_metadata
from skinlesion_cli.errors import DataError, name_items

_IMAGE_FOLDER = "ham10000_images_part"


def recognise(path: Path) -> bool:
    """Whether the folder holds the metadata and at least one of the image folders."""
    return (path / METADATA).is_file() and bool(_image_folders(path))


def read(folder: Path, options: SourceOptions) -> Collection:
    """Read the Kaggle layout; all images count as training images, as in the challenge.

    Raises
    ------
    DataError : images without a file or with an unknown diagnosis; two different images of one name.
    """
    if not (folder / METADATA).is_file():
        raise DataError(f"{METADATA} is missing in {folder}")
    metadata = read_metadata(folder / METADATA)
    images = _images(folder)
    missing = sorted(set(metadata) - set(images))
    if missing:
        raise DataError(
            f"images named in {METADATA} have no file: {name_items(missing)}",
            f"Expected them in HAM10000_images_part_1 and HAM10000_images_part_2 in {folder}.",
        )
    records: list[Record] = []
    unknown: list[str] = []
    for identity, row in metadata.items():
        label = known_class(row.get("dx", ""))
        if label is None:
            unknown.append(f"{identity} ({row.get('dx', '')!r})")
            continue
        records.append(described(identity, images[identity], label, row["lesion_id"], row, "train"))
    if unknown:
        raise DataError(f"{METADATA}: these images have a dx that is not known: {name_items(unknown)}")
    surplus = len(set(images) - set(metadata))
    notes = (f"{surplus:,} images are not in {METADATA} and were left out",) if surplus else ()
    return Collection("ham10000", records, LICENCE, ATTRIBUTION, notes)


def _image_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name.lower().startswith(_IMAGE_FOLDER))


def _images(folder: Path) -> dict[str, FileOrigin]:
    found: dict[str, list[Path]] = defaultdict(list)
    for image_folder in _image_folders(folder):
        for file in list_images(image_folder).files:
            found[Path(file).stem].append(image_folder / file)
    # Kaggle's archive once held every image twice, in folders that differ in case only.
    different = [
        identity
        for identity, paths in found.items()
        if len(paths) > 1 and len({path.read_bytes() for path in paths}) > 1
    ]
    if different:
        raise DataError(f"different images of one name: {name_items(sorted(different))}")
    return {identity: FileOrigin(paths[0]) for identity, paths in found.items()}
