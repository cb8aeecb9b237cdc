"""What every source hands over: labelled images, wherever they lie, in one form."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from skinlesion_cli.data.reading.listing import Listing
from skinlesion_cli.errors import DataError, name_items
from skinlesion_cli.taxonomy import CLASS_INDEX


@dataclass(frozen=True)
class FileOrigin:
    """An image that lies in a folder."""

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

    `file` is the name that it gets in the dataset's image folder. What is unknown is the empty string.
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


@dataclass(frozen=True)
class SourceOptions:
    """What the user decided about reading a source.

    `scc_as_akiec` counts squamous cell carcinoma as AKIEC (ISIC 2019); `archives_verified` says that the
    checksums inside zip archives were verified already.
    """

    scc_as_akiec: bool = False
    archives_verified: bool = False


@dataclass(frozen=True)
class Collection:
    """A source that was read: its images, what may be done with them, and what the user should know."""

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
    "no lesion ids: each image counts as a lesion of its own, so photographs of one lesion can come to lie on "
    "both sides of the split and make every figure too good; look at `skinlesion download --check-duplicates`"
)


def known_class(text: str) -> str | None:
    """One of the seven classes by its name, in upper or lower case; None for anything else."""
    name = text.strip().upper()
    return name if name in CLASS_INDEX else None


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
    astray: str = "have a name that tells no class",
    hint: str = "",
) -> Collection:
    """The images of a folder whose paths tell their class (and part), each a lesion of its own.

    Raises
    ------
    DataError : a label is None; says that these images `astray`, and names them.
    """
    ids, parts = ids_from_paths(listing.files), parts or {}
    records, without = [], []
    for file in listing.files:
        label = labels[file]
        if label is None:
            without.append(file)
            continue
        origin = FileOrigin(listing.root / file)
        records.append(Record(ids[file], origin, file, label, ids[file], part=parts.get(file, "")))
    if without:
        raise DataError(f"these images {astray}: {name_items(without)}", hint)
    notes = [NO_LESIONS]
    if listing.links:
        notes.append(f"links were not followed: {name_items(listing.links)}")
    return Collection(name, records, "unknown", "unknown", tuple(notes))


def refuse_duplicates(ids: Sequence[str], name: str) -> None:
    """Raise a DataError that names the ids that occur more than once."""
    duplicates = sorted(identity for identity, count in Counter(ids).items() if count > 1)
    if duplicates:
        raise DataError(f"{name}: these image ids occur more than once: {name_items(duplicates)}")


def known_age(text: str, where: str) -> str:
    """Age in years as text (`45.0` becomes `45`); empty where unknown.

    Raises
    ------
    DataError : it is neither empty, `unknown`, nor a number from 0 to 130.
    """
    cell = text.strip()
    if cell.lower() in ("", "unknown", "nan", "na", "none"):
        return ""
    try:
        years = float(cell)
    except ValueError:
        years = -1.0
    if not 0 <= years <= 130:
        raise DataError(f"{where}: {text!r} is no age in years")
    return f"{years:g}"


def known_word(text: str) -> str:
    """A sex or a body site as it is written; empty where unknown."""
    cell = text.strip()
    return "" if cell.lower() in ("unknown", "nan", "na", "none") else cell
