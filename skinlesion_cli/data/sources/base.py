"""What every source returns: labelled images, wherever they are stored, in one form."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from skinlesion_cli.data.reading.listing import Listing
from skinlesion_cli.errors import DataError, UsageError, name_items
from skinlesion_cli.taxonomy import plain_name
from skinlesion_cli.taxonomy.class_list import ClassList
from skinlesion_cli.taxonomy.shipped import shipped


@dataclass(frozen=True)
class FileOrigin:
    """An image file in a folder."""

    path: Path

    def read(self) -> bytes:
        if self.path.exists() and not self.path.is_file():
            raise OSError("not a regular file")  # reading a FIFO or a device would block for ever
        return self.path.read_bytes()


@dataclass(frozen=True)
class ZipOrigin:
    """An image inside a zip archive; `archive` stays open as long as its source is used."""

    archive: zipfile.ZipFile
    member: str

    def read(self) -> bytes:
        """The content; its checksum is verified on the way."""
        return self.archive.read(self.member)


@dataclass(frozen=True)
class Record:
    """One labelled image.

    `file` is its name in the dataset's image folder. Unknown values are empty strings. `source` is the
    dataset that the image comes from, where one table holds several; empty for that of its collection.
    """

    id: str
    origin: FileOrigin | ZipOrigin
    file: str
    label: str
    lesion_id: str
    age_years: str = ""
    sex: str = ""
    site: str = ""
    part: str = ""
    patient_id: str = ""
    source: str = ""


SKIP = "skip"
IMAGE_TYPES = ("dermoscopic", "all")
# Names of the parts as people write them -> part; empty where nothing is said.
PART_NAMES: Mapping[str, str] = {
    "": "",
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class SourceOptions:
    """What the user decided about reading a source.

    Parameters
    ----------
    classes : the list whose classes the labels become.
    scc_as_akiec : count squamous cell carcinoma, where the list has no class for it, as the class of actinic
        keratosis (AKIEC); otherwise it is dropped with the list `isic2018`, and unknown with any other.
    archives_verified : the checksums inside zip archives were verified already.
    class_map : label as written (by `taxonomy.plain_name`) -> class, or `SKIP` to drop its images.
    images : folder of the images, where it is not that of the table.
    allow_missing : leave rows without an image file out instead of refusing the source.
    image_types : `dermoscopic` or `all`, for sources that say what kind of photograph an image is.
    """

    classes: ClassList = field(kw_only=True)
    scc_as_akiec: bool = False
    archives_verified: bool = False
    class_map: Mapping[str, str] = field(default_factory=dict)
    images: Path | None = None
    allow_missing: bool = False
    image_types: str = "dermoscopic"

    def class_of(self, label: str) -> str | None:
        """The class of a label as people write it; empty where its images are dropped,
        None where it is unknown.
        """
        name = plain_name(label)
        if name in self.class_map:
            return "" if self.class_map[name] == SKIP else self.class_map[name]
        known = self.classes.class_named(label)
        if known is None and name in _SCC_NAMES:
            if self.scc_as_akiec:
                return self.classes.class_named(_ACTINIC_KERATOSIS)
            return "" if self.classes == shipped("isic2018") else None
        return known


# Invasive squamous cell carcinoma has no place among the seven classes of ISIC 2018.
_SCC_NAMES = frozenset(
    {
        "scc",
        "squamous cell carcinoma",
        "squamous cell carcinomas",
        "squamous cell carcinoma nos",
        "squamous cell carcinoma invasive",
        "invasive squamous cell carcinoma",
    }
)
_ACTINIC_KERATOSIS = "actinic keratosis"


def parse_class_map(entries: Sequence[str], classes: ClassList) -> dict[str, str]:
    """`NAME=CLASS` entries as plain name -> class (or `SKIP`).

    Raises
    ------
    UsageError : an entry has no `=`, names no class, or contradicts another.
    """
    mapping: dict[str, str] = {}
    for entry in entries:
        name, separator, target = entry.rpartition("=")
        label = SKIP if target.strip().lower() == SKIP else classes.class_named(target)
        if not separator or label is None:
            raise UsageError(
                f"--map {entry!r} is not NAME=CLASS",
                f"CLASS is one of {', '.join(classes.codes)}, or {SKIP}.",
            )
        if mapping.setdefault(plain_name(name), label) != label:
            raise UsageError(f"--map gives {name!r} two classes: {mapping[plain_name(name)]} and {label}")
    return mapping


def dropped_notes(labels: Iterable[str], options: SourceOptions) -> list[str]:
    """What to say of images that were dropped for their label (as written, one entry per image), by label."""
    notes = []
    for label, count in sorted(Counter(labels).items(), key=lambda item: (-item[1], item[0])):
        name = plain_name(label)
        scc = name in _SCC_NAMES and name not in options.class_map
        why = "--scc-as-akiec keeps them" if scc else "as --map says"
        notes.append(f"{count:,} images of class {label} were dropped ({why})")
    return notes


def unused_map_notes(labels: Iterable[str], options: SourceOptions) -> list[str]:
    """Names given with --map that no label (as written) has: a slip in one of them would go unnoticed."""
    unused = sorted(set(options.class_map) - {plain_name(label) for label in labels})
    return [f"no label is called {name!r}, which --map gives a class" for name in unused]


@dataclass(frozen=True)
class Collection:
    """A source after reading: its images, its licence, and notes for the user."""

    name: str
    records: Sequence[Record]
    licence: str
    attribution: str
    notes: tuple[str, ...] = ()

    def only(self, parts: Container[str]) -> Collection:
        """The images of these parts, and those that the source puts nowhere."""
        kept = [record for record in self.records if record.part in parts or not record.part]
        return replace(self, records=kept)


NO_LESIONS = (
    "no lesion ids: each image counts as a lesion of its own, so photographs of one lesion can be on "
    "both sides of "
    "the split, which makes every figure too optimistic; see `skinlesion download --check-duplicates`"
)


def refuse_unknown_labels(
    labels: Mapping[str, str | None], written: Mapping[str, str], name: str, options: SourceOptions
) -> None:
    """Raise a DataError that names images whose label is None, with their labels as written."""
    unknown = [f"{image} ({written[image]!r})" for image, label in labels.items() if label is None]
    if unknown:
        raise DataError(
            f"{name}: these images have a label that is not in the class list: {name_items(unknown)}",
            label_hint(options.classes),
        )


def label_hint(classes: ClassList) -> str:
    """What to do about labels that a class list does not know."""
    return (
        f"Known classes: {', '.join(classes.codes)}, and their synonyms. Give other names with --map "
        "NAME=CLASS (or NAME=skip), or choose another class list with --classes."
    )


def ids_from_paths(files: Sequence[str]) -> dict[str, str]:
    """Ids for relative paths, as path -> id: the path without its suffix, or with it where two differ in it.

    Sub-folders are part of the id, so that equal names in two of them stay apart.
    """
    stems = Counter(str(PurePosixPath(file).with_suffix("")) for file in files)
    named = {file: str(PurePosixPath(file).with_suffix("")) for file in files}
    return {file: stem if stems[stem] == 1 else file for file, stem in named.items()}


def from_paths(
    name: str,
    listing: Listing,
    labels: Mapping[str, str | None],
    parts: Mapping[str, str] | None = None,
    *,
    without_class: str = "have a name that does not state a class",
    hint: str = "",
) -> Collection:
    """The images of a folder whose paths tell their class (and part), each a lesion of its own.

    Images with an empty label are left out; the caller says why.

    Raises
    ------
    DataError : a label is None; the message says that these images `without_class`, and names them.
    """
    ids, parts = ids_from_paths(listing.files), parts or {}
    records, without = [], []
    for file in listing.files:
        label = labels[file]
        if label is None:
            without.append(file)
            continue
        if not label:
            continue
        origin = FileOrigin(listing.root / file)
        records.append(Record(ids[file], origin, file, label, ids[file], part=parts.get(file, "")))
    if without:
        raise DataError(f"these images {without_class}: {name_items(without)}", hint)
    notes = [NO_LESIONS]
    if listing.links:
        notes.append(f"links were not followed: {name_items(listing.links)}")
    return Collection(name, records, "unknown", "unknown", tuple(notes))


def refuse_duplicates(ids: Sequence[str], name: str) -> None:
    """Raise a DataError that names the ids that occur more than once."""
    duplicates = sorted(identity for identity, count in Counter(ids).items() if count > 1)
    if duplicates:
        raise DataError(f"{name}: these image ids occur more than once: {name_items(duplicates)}")


_UNKNOWN = ("", "unknown", "nan", "na", "n/a", "none", "null", "-")


def known_age(text: str, where: str) -> str:
    """Age in years as text (`45.0` becomes `45`); empty where unknown.

    Raises
    ------
    DataError : it is neither empty, `unknown`, nor a number from 0 to 130.
    """
    cell = text.strip()
    if cell.lower() in _UNKNOWN:
        return ""
    try:
        years = float(cell.removesuffix("+").replace(",", "."))
    except ValueError:
        years = -1.0
    if not 0 <= years <= 130:
        raise DataError(f"{where}: {text!r} is not an age in years")
    return f"{years:g}"


def known_word(text: str) -> str:
    """A sex or a body site as it is written; empty where unknown."""
    cell = text.strip()
    return "" if cell.lower() in _UNKNOWN else cell


def known_id(text: str) -> str:
    """A lesion or patient id as it is written; empty where unknown. (`NA` may be an id, `nan` never is.)"""
    cell = text.strip()
    return "" if cell.lower() in ("nan", "unknown", "none", "null", "-") else cell


def published_id(name: str) -> str:
    """The id of an image in the ISIC archive: ISIC 2019 calls 2,074 images `..._downsampled`.

    >>> published_id("ISIC_0000017_downsampled")
    'ISIC_0000017'
    """
    return name.removesuffix("_downsampled")
