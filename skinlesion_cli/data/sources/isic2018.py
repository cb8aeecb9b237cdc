"""ISIC 2018 Task 3 in its official layout: a folder, the official zips, or a mix of both.

Looked for in the folder: `ISIC2018_Task3_{Training,Validation,Test}_Input` and `..._GroundTruth`, each as a
folder, a zip or (ground truth) a CSV, `ISIC2018_Task3_Training_LesionGroupings.csv`, and, where it is there,
`HAM10000_metadata.csv` for age, sex and site.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from skinlesion_cli.artifacts import tables, user_tables
from skinlesion_cli.data.reading.archives import image_members, open_archive
from skinlesion_cli.data.sources.base import (
    Collection,
    FileOrigin,
    Record,
    SourceOptions,
    ZipOrigin,
    known_age,
    known_word,
    refuse_duplicates,
    refuse_unknown_labels,
)
from skinlesion_cli.errors import DataError, name_items
from skinlesion_cli.taxonomy.class_list import ClassList

CODES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
PARTS: Mapping[str, str] = {"Training": "train", "Validation": "val", "Test": "test"}
METADATA = "HAM10000_metadata.csv"
METADATA_FROM = "Harvard Dataverse, doi:10.7910/DVN/DBW86T"
LICENCE = "CC BY-NC 4.0"
ATTRIBUTION = (
    "Tschandl P., Rosendahl C., Kittler H.: The HAM10000 dataset, a large collection of multi-source "
    "dermatoscopic images of common pigmented skin lesions. Sci. Data 5, 180161 (2018), "
    "doi:10.1038/sdata.2018.161\n"
    "Codella N. et al.: Skin Lesion Analysis Toward Melanoma Detection 2018: A Challenge Hosted by the "
    "International Skin Imaging Collaboration (ISIC), arXiv:1902.03368 (2019)\n"
    "Codella N. et al.: Skin Lesion Analysis Toward Melanoma Detection: A Challenge at the 2017 "
    "International Symposium on Biomedical Imaging (MSK), arXiv:1710.05006 (2017)"
)


def recognise(path: Path, _classes: ClassList) -> bool:
    """Whether the folder holds at least one part in the official layout.

    The Harvard Dataverse hands out the test part's truth with other columns, beside HAM10000.
    """
    found = [table for name in PARTS if (table := _find(path, f"ISIC2018_Task3_{name}_GroundTruth"))]
    return any(table.suffix == ".zip" or "image" in user_tables.headers(table) for table in found)


def read(folder: Path, options: SourceOptions) -> Collection:
    """Read the official layout.

    Raises
    ------
    DataError : no ground truth; images without a file, without a class or without a lesion; duplicate ids; a
        damaged zip. The images are named.
    """
    parts = [name for name in PARTS if _find(folder, f"ISIC2018_Task3_{name}_GroundTruth")]
    if not parts:
        raise DataError(
            f"{folder} holds no ISIC 2018 Task 3 ground truth",
            "Expected ISIC2018_Task3_Training_GroundTruth (.csv, .zip or a folder) and its images beside it.",
        )
    metadata = read_metadata(folder / METADATA) if (folder / METADATA).is_file() else {}
    lesions = _lesions(folder, metadata)
    records: list[Record] = []
    notes: list[str] = []
    for name in parts:
        records += _part(folder, name, lesions, metadata, options, notes)
    if not metadata:
        notes.append(f"{METADATA} ({METADATA_FROM}) is not in {folder}: age, sex and site stay unknown")
    return Collection("isic2018", records, LICENCE, ATTRIBUTION, tuple(notes))


def _part(
    folder: Path,
    name: str,
    lesions: Mapping[str, str],
    metadata: Mapping[str, Mapping[str, str]],
    options: SourceOptions,
    notes: list[str],
) -> list[Record]:
    truth = one_hot(_table(folder, f"ISIC2018_Task3_{name}_GroundTruth"), CODES, f"{name} ground truth")
    labels = in_class_list(truth, f"{name} ground truth", options)
    images = image_origins(folder, f"ISIC2018_Task3_{name}_Input", options)
    missing = sorted(set(labels) - set(images))
    if missing and not (options.allow_missing and images):
        raise DataError(
            f"{name} images named in the ground truth have no file: {name_items(missing)}",
            f"Expected them in ISIC2018_Task3_{name}_Input (a folder or a zip) in {folder}; "
            "--allow-missing skips "
            "them.",
        )
    if missing:
        notes.append(f"{len(missing):,} of {len(labels):,} {name} images have no file and were skipped")
    unlabelled = sorted(set(images) - set(labels))
    if unlabelled:
        raise DataError(f"{name} images are not in the ground truth: {name_items(unlabelled)}")
    if name == "Training":
        without_lesion = sorted(set(labels) - set(lesions))
        if without_lesion:
            raise DataError(
                f"training images without a lesion id: {name_items(without_lesion)}",
                f"Add ISIC2018_Task3_Training_LesionGroupings.csv or {METADATA}: "
                "without lesions no split is free of leaks.",
            )
    # The lesions of the validation and test sets are not published; the sets are disjoint.
    return [
        described(
            identity,
            images[identity],
            label,
            lesions.get(identity, identity),
            metadata.get(identity, {}),
            PARTS[name],
        )
        for identity, label in labels.items()
        if identity in images
    ]


def one_hot(table: pd.DataFrame, classes: Sequence[str], name: str) -> dict[str, str]:
    """Labels of a table with the column `image` and one column of 0.0 and 1.0 for each class, as id -> class.

    Raises
    ------
    DataError : columns are missing or unknown, an id occurs twice, or a row has not exactly one class.
    """
    expected = ["image", *classes]
    if set(table.columns) != set(expected):
        raise DataError(f"{name} has the columns {', '.join(table.columns)}, expected {', '.join(expected)}")
    refuse_duplicates(table["image"].tolist(), name)
    try:
        values = table[list(classes)].astype(float).to_numpy()
    except ValueError as error:
        raise DataError(f"{name}: not every value is a number: {error}") from None
    good = ((values == 0.0) | (values == 1.0)).all(axis=1) & (values.sum(axis=1) == 1.0)
    if not good.all():
        offenders = name_items(table["image"][~good])
        raise DataError(f"{name}: these images do not have exactly one class: {offenders}")
    return {
        identity: classes[index]
        for identity, index in zip(table["image"], values.argmax(axis=1), strict=True)
    }


def in_class_list(truth: Mapping[str, str], name: str, options: SourceOptions) -> dict[str, str]:
    """Labels of a challenge, id -> code, as classes of the list; empty where their images are dropped.

    Raises
    ------
    DataError : the list has no class for some of them.
    """
    labels = {identity: options.class_of(code) for identity, code in truth.items()}
    refuse_unknown_labels(labels, truth, name, options)
    return {identity: label or "" for identity, label in labels.items()}


def described(
    identity: str,
    origin: FileOrigin | ZipOrigin,
    label: str,
    lesion_id: str,
    known: Mapping[str, str],
    part: str,
) -> Record:
    """A record with what a row of HAM10000_metadata.csv (or an empty mapping) says about its image."""
    return Record(
        id=identity,
        origin=origin,
        file=f"{identity}.jpg",
        label=label,
        lesion_id=lesion_id,
        age_years=known_age(known.get("age", ""), f"{METADATA}, {identity}"),
        sex=known_word(known.get("sex", "")),
        site=known_word(known.get("localization", "")),
        part=part,
    )


def _find(folder: Path, stem: str) -> Path | None:
    for candidate in (folder / stem / f"{stem}.csv", folder / f"{stem}.csv", folder / f"{stem}.zip"):
        if candidate.is_file():
            return candidate
    return None


def _table(folder: Path, stem: str) -> pd.DataFrame:
    path = _find(folder, stem)
    if path is None:
        raise DataError(f"{stem}.csv is missing in {folder}")
    if path.suffix == ".zip":
        with open_archive(path) as archive:
            names = [name for name in archive.namelist() if PurePosixPath(name).name == f"{stem}.csv"]
            if len(names) != 1:
                raise DataError(f"{path.name} does not hold {stem}.csv exactly once")
            return tables.read_csv(archive.read(names[0]), f"{stem}.csv")
    return tables.read_csv(path, path.name)


def image_origins(folder: Path, stem: str, options: SourceOptions) -> dict[str, FileOrigin | ZipOrigin]:
    """JPEG images of a folder, or a zip, of this name as id (file name without its suffix) -> origin.

    Raises
    ------
    DataError : an id occurs twice, or the zip is damaged or not safe.
    """
    if (folder / stem).is_dir():
        # At any depth: unpacking a zip into a folder of its name gives that folder twice.
        files = [
            path
            for path in sorted((folder / stem).rglob("*"))
            if path.suffix.lower() in (".jpg", ".jpeg") and not _is_hidden(path.relative_to(folder))
        ]
        refuse_duplicates([path.stem for path in files], stem)
        return {path.stem: FileOrigin(path) for path in files}
    if (folder / f"{stem}.zip").is_file():
        archive = open_archive(folder / f"{stem}.zip", verify_content=not options.archives_verified)
        members = image_members(archive)
        return {identity: ZipOrigin(archive, member) for identity, member in members.items()}
    return {}


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def read_metadata(path: Path) -> dict[str, dict[str, str]]:
    """HAM10000_metadata.csv as image id -> its row (`lesion_id`, `dx`, `age`, `sex`, `localization` ...)."""
    table = tables.read_csv(path, METADATA)
    tables.require_columns(table, ["image_id", "lesion_id", "age", "sex", "localization"], METADATA)
    refuse_duplicates(table["image_id"].tolist(), METADATA)
    return {str(row["image_id"]): row for row in table.to_dict("records")}


def _lesions(folder: Path, metadata: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    path = folder / "ISIC2018_Task3_Training_LesionGroupings.csv"
    if path.is_file():
        table = tables.read_csv(path, path.name)
        tables.require_columns(table, ["image", "lesion_id"], path.name)
        refuse_duplicates(table["image"].tolist(), path.name)
        pairs = zip(table["image"], table["lesion_id"], strict=True)
        return {identity: lesion for identity, lesion in pairs if lesion}
    return {identity: row["lesion_id"] for identity, row in metadata.items() if row["lesion_id"]}
