"""What every source hands over: labelled images, wherever they lie, in one form."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from skinlesion_cli.errors import DataError


@dataclass(frozen=True)
class FileOrigin:
    """An image that lies in a folder."""

    path: Path

    def read(self) -> bytes:
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
class Collection:
    """A source that was read: its images, what may be done with them, and what the user should know."""

    name: str
    records: Sequence[Record]
    licence: str
    attribution: str
    notes: tuple[str, ...] = ()


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
