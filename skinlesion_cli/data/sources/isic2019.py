"""ISIC 2019. Its eight classes are those of the list `isic2019`; with `isic2018`, AK is AKIEC, and SCC is
dropped unless --scc-as-akiec keeps it. UNK has no place in any list.
"""

from __future__ import annotations

from pathlib import Path

from skinlesion_cli.artifacts import tables
from skinlesion_cli.data.sources.base import (
    Collection,
    FileOrigin,
    Record,
    SourceOptions,
    ZipOrigin,
    known_age,
    known_id,
    known_word,
    published_id,
    refuse_duplicates,
)
from skinlesion_cli.data.sources.isic2018 import image_origins, in_class_list, one_hot
from skinlesion_cli.errors import DataError, name_items
from skinlesion_cli.taxonomy.class_list import ClassList

_TRUTH = "ISIC_2019_Training_GroundTruth.csv"
_METADATA = "ISIC_2019_Training_Metadata.csv"
_IMAGES = "ISIC_2019_Training_Input"
_CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
_SCC, _UNKNOWN = "SCC", "UNK"
LICENCE = "CC BY-NC 4.0"
ATTRIBUTION = (
    "Tschandl P., Rosendahl C., Kittler H.: The HAM10000 dataset. Sci. Data 5, 180161 (2018), "
    "doi:10.1038/sdata.2018.161\n"
    "Codella N. et al.: Skin Lesion Analysis Toward Melanoma Detection: A Challenge at the 2017 "
    "International Symposium on Biomedical Imaging (MSK), arXiv:1710.05006 (2017)\n"
    "Hernandez-Perez C. et al.: BCN20000: Dermoscopic Lesions in the Wild. Sci. Data 11, 641 (2024), "
    "doi:10.1038/s41597-024-03387-w"
)


def recognise(path: Path, _classes: ClassList) -> bool:
    """Whether the folder holds the ground truth of ISIC 2019."""
    return (path / _TRUTH).is_file()


def read(folder: Path, options: SourceOptions) -> Collection:
    """Read the training set of ISIC 2019; images without a class in the list are dropped and counted.

    Ids are those of the ground truth: 2,074 of them end in `_downsampled`,
    in all three tables and file names.

    Raises
    ------
    DataError : images without a file, duplicate ids, rows without exactly one class.
    """
    labels = one_hot(tables.read_csv(folder / _TRUTH, _TRUTH), (*_CLASSES, _UNKNOWN), _TRUTH)
    images = _by_published_id(image_origins(folder, _IMAGES, options))
    known = {identity: label for identity, label in labels.items() if label != _UNKNOWN}
    kept = {identity: label for identity, label in in_class_list(known, _TRUTH, options).items() if label}
    missing = sorted(identity for identity in kept if published_id(identity) not in images)
    if missing and not (options.allow_missing and len(missing) < len(kept)):
        raise DataError(
            f"images named in {_TRUTH} have no file: {name_items(missing)}",
            f"Expected them in {_IMAGES} (a folder or a zip) in {folder}; --allow-missing skips them.",
        )
    metadata = _metadata(folder)
    records = []
    for identity in sorted(set(kept) - set(missing)):
        facts = metadata.get(published_id(identity), {})
        origin = images[published_id(identity)]
        name = origin.path.name if isinstance(origin, FileOrigin) else origin.member
        records.append(
            Record(
                id=identity,
                origin=origin,
                file=f"{identity}{Path(name).suffix.lower()}",
                label=kept[identity],
                lesion_id=known_id(facts.get("lesion_id", "")) or identity,
                age_years=known_age(facts.get("age_approx", ""), f"{_METADATA}, {identity}"),
                sex=known_word(facts.get("sex", "")),
                site=known_word(facts.get("anatom_site_general", "")),
                patient_id=known_id(facts.get("patient_id", "")),
            )
        )
    notes = _notes(labels, records, options)
    if missing:
        notes += (f"{len(missing):,} images have no file and were skipped: {name_items(missing)}",)
    return Collection("isic2019", records, LICENCE, ATTRIBUTION, notes)


def _by_published_id(images: dict[str, FileOrigin | ZipOrigin]) -> dict[str, FileOrigin | ZipOrigin]:
    refuse_duplicates([published_id(identity) for identity in images], _IMAGES)
    return {published_id(identity): origin for identity, origin in images.items()}


def _notes(labels: dict[str, str], records: list[Record], options: SourceOptions) -> tuple[str, ...]:
    names = list(labels.values())
    notes = []
    if dropped := names.count(_UNKNOWN):
        notes.append(f"{dropped:,} images of class UNK were dropped")
    if (scc := names.count(_SCC)) and options.class_of(_SCC) != _SCC:
        counted = options.class_of(_SCC)
        what = f"count as {counted}" if counted else "were dropped (--scc-as-akiec keeps them)"
        notes.append(f"{scc:,} images of class SCC {what}")
    if alone := sum(record.lesion_id == record.id for record in records):
        notes.append(f"{alone:,} images without a lesion id count as lesions of their own")
    return tuple(notes)


def _metadata(folder: Path) -> dict[str, dict[str, str]]:
    if not (folder / _METADATA).is_file():
        raise DataError(
            f"{_METADATA} is missing in {folder}", "It holds the lesion ids, which the split needs."
        )
    table = tables.read_csv(folder / _METADATA, _METADATA)
    tables.require_columns(table, ["image", "lesion_id"], _METADATA)
    refuse_duplicates(table["image"].tolist(), _METADATA)
    return {published_id(str(row["image"])): row for row in table.to_dict("records")}
