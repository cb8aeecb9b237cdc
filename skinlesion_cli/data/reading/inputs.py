"""What a user names, as a stream of images with ids that never collide.

Nothing is collected: a list of a million names yields its first image at once, and a folder is read one level
at a time. What cannot be an image in a way that only opening it can tell (a link, an unreadable folder, an
unsafe archive) comes out as an input with a `refusal`, so that it gets a row of its own.
"""

from __future__ import annotations

import glob
import lzma
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np

from skinlesion_cli.data.reading.archives import open_archive
from skinlesion_cli.data.reading.dicom import DICOM_SUFFIXES, looks_like_dicom, read_dicom
from skinlesion_cli.data.reading.images import check_not_blank, read_image
from skinlesion_cli.data.reading.kinds import has_image_suffix
from skinlesion_cli.data.reading.limits import MAX_PIXELS
from skinlesion_cli.errors import DataError, ImageError, UsageError, name_items

ARCHIVE_SUFFIX = ".zip"
_CHUNK_BYTES = 1 << 16
# Characters that would break a line, hide a name or turn it around on a terminal.
_UNSAFE = (
    {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)}
    | {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
    | {"\\"}
)


@dataclass(frozen=True)
class ImageInput:
    """One image to be.

    `id` is the path below the folder or archive that was named (with `/`), or the file as it was named, in
    printable characters. `member` is set for images inside the zip archive at `path`. `refusal` is a reason
    and a message where it must not be opened. `content` are its bytes where it is no file at all.
    """

    id: str
    path: Path
    member: str | None = None
    refusal: tuple[str, str] | None = None
    content: bytes | None = None


def identity(name: str) -> str:
    """A name as an id: one line, printable, and still different for different names.

    >>> identity("a b.jpg"), identity("two\\nlines.jpg")
    ('a b.jpg', 'two\\\\x0alines.jpg')
    """
    text = Path(name).as_posix() if os.sep != "/" else name
    # What Python calls printable is never escaped, but for the backslash; nearly every name is that.
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character in _UNSAFE or 0xD800 <= ord(character) <= 0xDFFF:
        code = ord(character)
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    return character


def check_named(named: Sequence[str]) -> None:
    """Refuse names of nothing at once, before a single image is predicted.

    Raises
    ------
    UsageError : a file, folder, list or pattern that was named is not there.
    DataError : an archive that was named is not safe.
    """
    missing = []
    for name in named:
        if name.startswith("@") and not os.path.lexists(name):
            if not Path(name[1:]).is_file():
                missing.append(name)
        elif os.path.lexists(name):
            if Path(name).suffix.lower() == ARCHIVE_SUFFIX and Path(name).is_file():
                _checked_members(Path(name), _stamp(Path(name)))
        elif not glob.has_magic(name) or next(glob.iglob(name, recursive=True), None) is None:
            missing.append(name)
    if missing:
        raise UsageError(f"there is no file or folder {name_items(identity(name) for name in missing)}")


def expand(named: Sequence[str], listed: Iterable[str] = ()) -> Iterator[ImageInput]:
    """Images of the files, folders, patterns, `@list` files and archives named, then those of a list.

    Folders come in sorted order, each with what is below it; symbolic links in them are not followed. Where
    one folder or archive is all that was named, ids are paths below it; otherwise they begin with it as it
    was named, so that two folders never share an id.
    """
    alone = len(named) == 1
    for name in named:
        if name.startswith("@") and not os.path.lexists(name):
            with Path(name[1:]).open("rb") as file:
                for line in lines(file):
                    yield from _one(line, f"{line.rstrip('/')}/")
        elif not os.path.lexists(name) and glob.has_magic(name):
            for found in sorted(glob.iglob(name, recursive=True)):
                if _is_candidate(found):
                    yield from _one(found, f"{found}/")
        else:
            yield from _one(name, "" if alone else f"{name.rstrip('/')}/")
    for line in listed:
        yield from _one(line, f"{line.rstrip('/')}/")


def lines(file: IO[bytes]) -> Iterator[str]:
    """Names from a stream, separated by NUL if there is one before the first newline, else by newlines."""
    read = getattr(file, "read1", file.read)
    waiting, separator = b"", b""
    while chunk := read(_CHUNK_BYTES):
        if not waiting and not separator:
            chunk = chunk.removeprefix(b"\xef\xbb\xbf")
        waiting += chunk
        if not separator:
            marks = [mark for mark in (b"\0", b"\n") if mark in waiting]
            if not marks:
                continue
            separator = min(marks, key=waiting.index)
        *whole, waiting = waiting.split(separator)
        for name in whole:
            yield from _name(name, separator)
    yield from _name(waiting, separator)


def _name(raw: bytes, separator: bytes) -> Iterator[str]:
    if separator != b"\0":
        raw = raw.removesuffix(b"\r")
    if raw:
        yield os.fsdecode(raw)


def _is_candidate(name: str) -> bool:
    suffix = Path(name).suffix.lower()
    return has_image_suffix(name) or suffix == ARCHIVE_SUFFIX


def _one(name: str, prefix: str) -> Iterator[ImageInput]:
    path = Path(name)
    suffix = path.suffix.lower()
    if suffix == ARCHIVE_SUFFIX and os.path.isfile(path):
        yield from _members(path, name, prefix)
    # Not Path.is_dir: that raises for a name too long for the file system, and a list may hold any text.
    elif not has_image_suffix(name) and os.path.isdir(path):
        yield from _below(path, prefix)
    else:
        yield ImageInput(identity(name), path)


def _below(folder: Path, prefix: str) -> Iterator[ImageInput]:
    try:
        ordered = _listed(folder)
    except OSError as error:
        refusal = ("unreadable", f"the folder cannot be opened: {error.strerror or error}")
        yield ImageInput(identity(prefix.rstrip("/") or str(folder)), folder, refusal=refusal)
        return
    for tagged in ordered:
        own, _, kind = tagged.partition("\0")
        path, name = folder / own, f"{prefix}{own}"
        if kind == _LINK:
            refusal = ("link", "a symbolic link below a folder is not followed")
            yield ImageInput(identity(name), path, refusal=refusal)
        elif kind == _FOLDER:
            yield from _below(path, f"{name}/")
        else:
            yield ImageInput(identity(name), path)


_LINK, _FOLDER, _FILE = "link", "folder", "file"


def _listed(folder: Path) -> list[str]:
    """What concerns us in one folder, in the order of the names: `name`, NUL, and what it is.

    A folder may hold a million images, and has to be read whole to be in order: one text an entry is the least.
    """
    with os.scandir(folder) as entries:
        return sorted(f"{entry.name}\0{kind}" for entry in entries if (kind := _kind_of(entry)))


def _kind_of(entry: os.DirEntry[str]) -> str | None:
    """What an entry of a folder is, or None where it is nothing to us."""
    if entry.is_symlink():
        return _LINK if _is_candidate(entry.name) or _leads_to_folder(Path(entry.path)) else None
    if entry.is_dir():
        return _FOLDER
    archive = entry.name.lower().endswith(ARCHIVE_SUFFIX)
    return _FILE if _is_candidate(entry.name) and not archive else None


def count_quickly(named: Sequence[str], most: int) -> int | None:
    """How many images are in files and folders; None where there are more than `most`, or it takes long to tell.

    Folders are not read further than that, nor in order: this is for a progress bar.
    """
    count, waiting = 0, list(named)
    while waiting:
        name = waiting.pop()
        if (name.startswith("@") and not os.path.lexists(name)) or name.lower().endswith(ARCHIVE_SUFFIX):
            return None
        if not os.path.lexists(name) and glob.has_magic(name):
            found: Iterable[str] = (path for path in glob.iglob(name, recursive=True) if _is_candidate(path))
            waiting += islice(found, most + 1)
        elif not has_image_suffix(name) and os.path.isdir(name):
            with suppress(OSError), os.scandir(name) as entries:
                for entry in entries:
                    kind = _kind_of(entry)
                    waiting += [entry.path] if kind == _FOLDER else []
                    count += kind in (_LINK, _FILE)
                    if count > most:
                        return None
        else:
            count += 1
        if count > most or len(waiting) > most:
            return None
    return count


def _leads_to_folder(link: Path) -> bool:
    try:
        return link.is_dir()
    except OSError:  # a loop
        return True


def _members(path: Path, name: str, prefix: str) -> Iterator[ImageInput]:
    try:
        members = _checked_members(path, _stamp(path))
    except DataError as error:
        yield ImageInput(identity(name), path, refusal=("archive_refused", error.message))
        return
    for member in members:
        yield ImageInput(identity(f"{prefix}{member}"), path, member=member)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=16)
def _checked_members(path: Path, _stamp: tuple[int, int]) -> tuple[str, ...]:
    """Image members in sorted order; every byte of the archive was read and checked once."""
    with open_archive(path) as archive:
        names = [member.filename for member in archive.infolist() if not member.is_dir()]
    return tuple(sorted(n for n in names if _is_candidate(n) and "__MACOSX" not in n.split("/")))


def load(source: ImageInput, *, max_pixels: int = MAX_PIXELS, target_px: int | None = None) -> np.ndarray:
    """The pixels of an input: uint8 (height, width, 3), upright RGB; see `images.read_image`.

    Raises
    ------
    ImageError : it was refused or cannot be read.
    """
    if source.refusal is not None:
        raise ImageError(*source.refusal)
    name = source.member or source.path.name
    content: Path | bytes = source.path if source.content is None else source.content
    if source.member is not None:
        content = _member_bytes(source.path, source.member)
    if Path(name).suffix.lower() in DICOM_SUFFIXES or looks_like_dicom(content):
        pixels = read_dicom(content, max_pixels=max_pixels)
    else:
        pixels = read_image(content, max_pixels=max_pixels, target_px=target_px)
    check_not_blank(pixels)
    return pixels


def _member_bytes(path: Path, member: str) -> bytes:
    try:
        # All of the archive was checked when it was expanded; reading still verifies the member's checksum.
        return _opened(path, _stamp(path)).read(member)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, KeyError, OSError) as error:
        raise ImageError("damaged", f"cannot be read from {path.name}: {error}") from None


@lru_cache(maxsize=4)
def _opened(path: Path, _stamp: tuple[int, int]) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)
