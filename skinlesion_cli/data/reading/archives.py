"""Zip archives that nobody vouches for: checked as a whole before anything is taken out."""

from __future__ import annotations

import lzma
import stat
import zipfile
import zlib
from collections import Counter
from pathlib import Path, PurePosixPath, PureWindowsPath

from skinlesion_cli.errors import DataError, name_items

# Photographs hardly compress and the official tables compress 12 to 1. An archive that claims to hold more
# than this many times its own size is a bomb.
_MAX_RATIO = 20
_ALLOWANCE_BYTES = 100 << 20
_MAX_MEMBER_BYTES = 1 << 30
_MAX_MEMBERS = 1_000_000
_ENCRYPTED_FLAG = 0x1


def open_archive(path: Path, *, verify_content: bool = True) -> zipfile.ZipFile:
    """Open a zip archive after checking all of it; nothing is extracted.

    Parameters
    ----------
    verify_content : read every member once and verify its checksum. Without it only the table of contents is
        checked; reading a member later still verifies that member.

    Raises
    ------
    DataError : it is no zip archive or a damaged one; a member escapes the folder, is a link or a device, is
        encrypted, occurs twice; or it would unpack to an absurd size.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise DataError(f"{path.name} cannot be read as a zip archive: {error}") from None
    try:
        _check_members(archive, path)
        if verify_content:
            _check_content(archive, path)
    except BaseException:
        archive.close()
        raise
    return archive


def image_members(archive: zipfile.ZipFile) -> dict[str, str]:
    """JPEG images of an archive, as id (file name without its end) -> member; system folders are left out.

    Raises
    ------
    DataError : one id occurs in two folders of the archive.
    """
    found = [
        (PurePosixPath(name).stem, name)
        for name in archive.namelist()
        if PurePosixPath(name).suffix.lower() in (".jpg", ".jpeg")
        and not any(part == "__MACOSX" or part.startswith(".") for part in PurePosixPath(name).parts)
    ]
    twice = [identity for identity, count in Counter(identity for identity, _ in found).items() if count > 1]
    if twice:
        raise DataError(f"{Path(archive.filename or '').name} holds these images twice: {name_items(twice)}")
    return dict(found)


def _check_members(archive: zipfile.ZipFile, path: Path) -> None:
    members = archive.infolist()
    refused = "the whole archive is refused and nothing was taken out of it"
    hint = "Get it again from its official place."
    if len(members) > _MAX_MEMBERS:
        raise DataError(f"{path.name} has {len(members):,} members; {refused}", hint)
    bad = [f"{member.filename!r} ({reason})" for member in members if (reason := _refusal(member))]
    if bad:
        raise DataError(f"{path.name} is not safe: {name_items(bad)}; {refused}", hint)
    twice = [name for name, count in Counter(member.filename for member in members).items() if count > 1]
    if twice:
        raise DataError(f"{path.name} has members of the same name: {name_items(twice)}; {refused}", hint)
    unpacked = sum(member.file_size for member in members)
    largest = max((member.file_size for member in members), default=0)
    limit = _ALLOWANCE_BYTES + _MAX_RATIO * path.stat().st_size
    if unpacked > limit or largest > _MAX_MEMBER_BYTES:
        raise DataError(
            f"{path.name} ({path.stat().st_size:,} bytes) would unpack to {unpacked:,} bytes; {refused}", hint
        )


def _refusal(member: zipfile.ZipInfo) -> str | None:
    # orig_filename is what the archive says; zipfile cuts names at a NUL and turns backslashes around.
    name = member.orig_filename
    if not name or "\0" in name or "\\" in name:
        return "no plain name"
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or PureWindowsPath(name).root:
        return "absolute path"
    if ".." in PurePosixPath(name).parts:
        return "leads out of the folder"
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link or a device"
    if member.flag_bits & _ENCRYPTED_FLAG:
        return "encrypted"
    return None


def _check_content(archive: zipfile.ZipFile, path: Path) -> None:
    try:
        damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, NotImplementedError) as error:
        raise DataError(f"{path.name} is damaged: {error}", "Get it again.") from None
    if damaged is not None:
        raise DataError(f"{path.name} is damaged: the checksum of {damaged!r} is wrong", "Get it again.")
