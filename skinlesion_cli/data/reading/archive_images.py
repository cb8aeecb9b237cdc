"""The images in a zip archive: which members are some, with how many frames, and their bytes."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from skinlesion_cli.data.reading.archives import READ_ERRORS, is_hidden, open_archive, read_member
from skinlesion_cli.data.reading.folders import HIDDEN
from skinlesion_cli.data.reading.frames import NO_IMAGE, counted_frames
from skinlesion_cli.data.reading.kinds import HEAD_BYTES, kind_of
from skinlesion_cli.errors import DataError, ImageError


@dataclass(frozen=True)
class Member:
    """A file in an archive: its kind by name, and the numbers of its frames; none where it is no image."""

    name: str
    kind: str
    frames: tuple[int, ...] | ImageError


def members(path: Path) -> tuple[Member, ...]:
    """The files in the archive, sorted by name; every byte of it is read and checked once.

    Raises
    ------
    DataError : the archive is damaged, or must not be opened; see `archives.open_archive`.
    """
    return _checked_members(path, _stamp(path))


def member_bytes(path: Path, member: str) -> bytes:
    """The content of a member of an archive that `members` has read.

    Raises
    ------
    ImageError : it cannot be read any more.
    """
    try:
        # All of the archive was checked when it was expanded; reading still verifies the member's checksum.
        archive = _opened(path, _stamp(path), os.getpid())
        return read_member(archive, archive.getinfo(member))
    except READ_ERRORS as error:
        raise ImageError("damaged", f"cannot be read from {path.name}: {error}") from None


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=16)
def _checked_members(path: Path, _stamp: tuple[int, int]) -> tuple[Member, ...]:
    with open_archive(path) as archive:
        files = [member for member in archive.infolist() if not member.is_dir()]
        try:
            return tuple(_member(archive, m) for m in sorted(files, key=lambda member: member.filename))
        except READ_ERRORS as error:
            raise DataError(f"{path.name} is damaged: {error}", "Get it again.") from None


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Member:
    name = member.filename
    if is_hidden(name):
        return Member(name, HIDDEN, ())
    kind = kind_of(read_member(archive, member, HEAD_BYTES), name)
    if not kind.image:
        return Member(name, kind.name, ())
    if kind.reader == "dicom" or kind.pillow == "TIFF":
        return Member(name, NO_IMAGE, counted_frames(read_member(archive, member), kind))
    return Member(name, kind.name, (1,))


@lru_cache(maxsize=4)
def _opened(path: Path, _stamp: tuple[int, int], _process: int) -> zipfile.ZipFile:
    # Processes that were forked share the position in a file that was open before.
    return zipfile.ZipFile(path)
