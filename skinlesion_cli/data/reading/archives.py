"""Zip archives that nobody vouches for: checked as a whole before anything is taken out."""

from __future__ import annotations

import bz2
import copy
import lzma
import stat
import zipfile
import zlib
from collections import Counter
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

from skinlesion_cli.errors import DataError, name_items

# Photographs hardly compress and the official tables compress 12 to 1. An archive that claims to hold more
# than this many times its own size is a bomb.
_MAX_RATIO = 20
_ALLOWANCE_BYTES = 100 << 20
_MAX_MEMBER_BYTES = 1 << 30
_MAX_MEMBERS = 1_000_000
_ENCRYPTED_FLAG = 0x1
_CHUNK_BYTES = 1 << 20
# The decoder takes that much memory before it has seen a byte.
_MAX_LZMA_DICTIONARY_BYTES = 64 << 20
# What reading a member can raise: `zipfile` lets the errors of the decompressors through.
READ_ERRORS: Final = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    KeyError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


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
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{path.name} cannot be read as a zip archive: {error}") from None
    try:
        _check_members(archive, path)
        if verify_content:
            _check_content(archive, path)
    except BaseException:
        archive.close()
        raise
    return archive


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, size: int | None = None) -> bytes:
    """The content of a member, or its first `size` bytes; never more is unpacked than the archive announces.

    Raises
    ------
    One of `READ_ERRORS` : it is damaged; the checksum is verified where all of it is read.
    """
    wanted = member.file_size if size is None else min(size, member.file_size)
    if member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with archive.open(member) as file:
            content = file.read(wanted)
            # Only the attempt to read on verifies the checksum of a member that is done.
            beyond = file.read(1) if size is None else b""
    elif member.compress_type in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        # `zipfile` unpacks these without a limit.
        content, beyond = _unpacked(_packed(archive, member), member.compress_type, wanted)
        if size is None and zlib.crc32(content) != member.CRC:
            raise zipfile.BadZipFile(f"bad checksum of {member.filename!r}")
    else:
        raise NotImplementedError(f"{member.filename!r} is compressed by method {member.compress_type}")
    if len(content) < wanted or (size is None and beyond):
        raise zipfile.BadZipFile(f"{member.filename!r} has not the size that the archive announces")
    return content


def image_members(archive: zipfile.ZipFile) -> dict[str, str]:
    """JPEG images of an archive, as id (file name without its end) -> member; system folders are left out.

    Raises
    ------
    DataError : one id occurs in two folders of the archive.
    """
    members = [
        (PurePosixPath(name).stem, name)
        for name in archive.namelist()
        if PurePosixPath(name).suffix.lower() in (".jpg", ".jpeg") and not is_hidden(name)
    ]
    counts = Counter(identity for identity, _ in members)
    twice = [identity for identity, count in counts.items() if count > 1]
    if twice:
        raise DataError(f"{Path(archive.filename or '').name} holds these images twice: {name_items(twice)}")
    return dict(members)


def is_hidden(name: str) -> bool:
    """Whether a member is what file systems and archivers keep for themselves."""
    return any(part == "__MACOSX" or part.startswith(".") for part in PurePosixPath(name).parts)


def _packed(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The compressed bytes of a member."""
    raw = copy.copy(member)
    raw.compress_type, raw.file_size = zipfile.ZIP_STORED, member.compress_size
    # None: there is no checksum of the compressed bytes.
    raw.CRC = None  # type: ignore[assignment]
    with archive.open(raw) as file:
        return file.read()


def _unpacked(packed: bytes, method: int, wanted: int) -> tuple[bytes, bytes]:
    """The first `wanted` bytes, and whether there are more."""
    if method == zipfile.ZIP_BZIP2:
        content = bz2.BZ2Decompressor().decompress(packed, wanted + 1)
    else:
        content = _lzma_decompressor(packed).decompress(packed[9:], wanted + 1)
    return content[:wanted], content[wanted:]


def _lzma_decompressor(packed: bytes) -> lzma.LZMADecompressor:
    """By the five bytes of properties behind the four of the zip header (APPNOTE 5.8.8)."""
    if len(packed) < 9 or packed[2:4] != b"\x05\0" or packed[4] >= 9 * 5 * 5:
        raise lzma.LZMAError("unknown properties")
    dictionary = int.from_bytes(packed[5:9], "little")
    if dictionary > _MAX_LZMA_DICTIONARY_BYTES:
        raise lzma.LZMAError(f"a dictionary of {dictionary:,} bytes")
    rest, literal_context = divmod(packed[4], 9)
    position_bits, literal_position = divmod(rest, 5)
    properties = {"lc": literal_context, "lp": literal_position, "pb": position_bits}
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": max(dictionary, 4096), **properties}]
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)


def _check_members(archive: zipfile.ZipFile, path: Path) -> None:
    members = archive.infolist()
    refused = "the whole archive is refused and nothing was taken out of it"
    hint = "Get it again from its official place."
    if len(members) > _MAX_MEMBERS:
        raise DataError(f"{path.name} has {len(members):,} members; {refused}", hint)
    bad = [f"{member.filename!r} ({reason})" for member in members if (reason := _refusal(member))]
    if bad:
        raise DataError(f"{path.name} is not safe: {name_items(bad)}; {refused}", hint)
    counts = Counter(member.filename for member in members)
    twice = [repr(name) for name, count in counts.items() if count > 1]
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
    for member in archive.infolist():
        try:
            if member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                with archive.open(member) as file:
                    while file.read(_CHUNK_BYTES):
                        pass
            elif not member.is_dir():
                read_member(archive, member)
        except READ_ERRORS as error:
            raise DataError(
                f"{path.name} is damaged: {member.filename!r}: {error}", "Get it again."
            ) from None
