"""Copying a source's images into the dataset folder, and the manifest rows that describe them."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pandas as pd

from skinlesion_cli.artifacts.files import replace_file, sha256_bytes, sha256_file
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.data.reading.images import check_image
from skinlesion_cli.data.sources.base import Collection, FileOrigin, Record
from skinlesion_cli.errors import DataError, SkinLesionError, name_items
from skinlesion_cli.parallel import in_order
from skinlesion_cli.progress import Reporter


def ingest_images(
    collection: Collection, images_folder: Path, reporter: Reporter, *, link: bool = False
) -> pd.DataFrame:
    """Copy every image into `images_folder`; it gets its final name only when it is complete.

    A file that is already there with the right content is kept. With `link`, files are hard-linked instead of
    copied where the file system allows it.

    Returns
    -------
    The manifest's table (`Manifest.COLUMNS`, all text, sorted by id).

    Raises
    ------
    DataError : two images would get the same name, or files cannot be read or are damaged; they are named.
    SkinLesionError : the folder cannot be written.
    """
    names = Counter(record.file for record in collection.records)
    clashing = sorted(name for name, count in names.items() if count > 1)
    if clashing:
        raise DataError(f"more than one image would get the name {name_items(clashing)}")
    images_folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, str]] = []
    problems: list[str] = []

    def ingest(record: Record) -> tuple[Record, str, str]:
        try:
            data = record.origin.read()
            check_image(data)
        except Exception as error:  # a zip raises its own kinds for bad checksums and methods
            return record, "", f"{record.id} ({error})"
        _place(record, data, images_folder / record.file, link)
        return record, sha256_bytes(data), ""

    try:
        with reporter.task("importing images", total=len(collection.records), unit="images") as task:
            # A zip archive is read by one thread at a time anyway; reading ahead hides the disk.
            for record, digest, problem in in_order(collection.records, ingest, threads=2):
                task.advance()
                if problem:
                    problems.append(problem)
                rows.append(_row(record, digest, record.source or collection.name))
    except OSError as error:
        raise SkinLesionError(
            f"cannot write images to {images_folder}: {error.strerror or error}",
            "Check that the folder is writable and has free space, then run the same command again.",
        ) from error
    if problems:
        raise DataError(f"these images cannot be used: {name_items(problems)}")
    return pd.DataFrame(rows, columns=list(Manifest.COLUMNS), dtype=str).sort_values("id", ignore_index=True)


def intact(table: pd.DataFrame, images_folder: Path, reporter: Reporter) -> bool:
    """Whether every image of the manifest's table is in its place and has its hash."""

    def is_intact(file: str, digest: str) -> bool:
        path = images_folder / file
        return path.is_file() and sha256_file(path) == digest

    pairs = list(zip(table["file"], table["sha256"], strict=True))
    with reporter.task("checking images", total=len(pairs), unit="images") as task:
        for file, digest in pairs:
            if not is_intact(file, digest):
                return False
            task.advance()
    return True


def _place(record: Record, data: bytes, target: Path, link: bool) -> None:
    if target.is_file() and target.stat().st_size == len(data) and target.read_bytes() == data:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.unlink(missing_ok=True)
    if link and isinstance(record.origin, FileOrigin):
        try:
            os.link(record.origin.path, temporary)
        except OSError:
            # Another file system, or one without links: a copy serves as well.
            shutil.copyfile(record.origin.path, temporary)
    else:
        temporary.write_bytes(data)
    replace_file(temporary, target)


def _row(record: Record, digest: str, source: str) -> dict[str, str]:
    return {
        "id": record.id,
        "file": record.file,
        "sha256": digest,
        "label": record.label,
        "lesion_id": record.lesion_id,
        "age_years": record.age_years,
        "sex": record.sex,
        "site": record.site,
        "part": record.part,
        "source": source,
        "patient_id": record.patient_id,
    }
