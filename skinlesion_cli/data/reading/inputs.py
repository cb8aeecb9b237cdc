"""What a user names, as a stream of images with ids that never collide.

Nothing is collected: a list of a million names yields its first image at once, and a folder is read one level
at a time. What must not be opened (a link, an unreadable folder, an unsafe archive) comes out as an input
with a `refusal`, so that it gets a row of its own; files that are no images are counted by kind.
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from skinlesion_cli.data.metadata import PatientMetadata
from skinlesion_cli.data.reading import archive_images
from skinlesion_cli.data.reading.folders import sniff, walk
from skinlesion_cli.data.reading.frames import NO_IMAGE, counted_frames
from skinlesion_cli.data.reading.images import check_not_blank, load_image
from skinlesion_cli.data.reading.kinds import HEAD_BYTES, FileKind, has_image_suffix, kind_of
from skinlesion_cli.data.reading.limits import MAX_PIXELS
from skinlesion_cli.data.reading.lists import lines
from skinlesion_cli.data.reading.loaded import LoadedImage
from skinlesion_cli.errors import DataError, ImageError, UsageError, escape_unprintable, name_items

__all__ = [
    "ImageInput",
    "check_named",
    "count_quickly",
    "expand",
    "expand_bytes",
    "identity",
    "lines",
    "load",
]

ARCHIVE_SUFFIX = ".zip"
_ARCHIVE_KIND = "zip archive"
# Controls, line and paragraph separators, and marks that turn text around. Spaces of all kinds stay in ids.
_CONTROLS = frozenset(
    {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)}
    | {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
)
# What the id of a frame ends in.
_FRAME_MARK = re.compile(r"#(?=\d+$)")


@dataclass(frozen=True)
class ImageInput:
    """One image to be read.

    `id` is the path below the folder or archive that was named (with `/`), or the file as it was named, in
    printable characters; where a file has several frames, each of them, the first too, has `#` and its
    number, from 1, behind that. `member` is set for images inside the zip archive at `path`. `refusal` is a
    reason and a message where it must not be opened. `content` is its bytes where it is not a file.
    `frame` is the number of the frame. `patient` is what the user said of the patient.
    """

    id: str
    path: Path
    member: str | None = None
    refusal: tuple[str, str] | None = None
    content: bytes | None = None
    frame: int = 1
    patient: PatientMetadata | None = None


def identity(name: str) -> str:
    """A name as an id: one line, printable, and still different for different names.

    >>> identity("a b.jpg"), identity("two\\nlines.jpg")
    ('a b.jpg', 'two\\\\x0alines.jpg')
    """
    text = Path(name).as_posix() if os.sep != "/" else name
    # What Python calls printable is never escaped, but for the backslash; nearly every name is that.
    if not text.isprintable() or "\\" in text:
        text = "".join(
            escape_unprintable(character)
            if character in _CONTROLS or "\ud800" <= character <= "\udfff"
            else character
            for character in text.replace("\\", "\\\\")
        )
    # A file that is called like a frame of another.
    return _FRAME_MARK.sub("\\\\x23", text) if "#" in text else text


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
                archive_images.members(Path(name))
        elif not glob.has_magic(name) or next(_matches(name), None) is None:
            missing.append(name)
    if missing:
        raise UsageError(
            f"there is no file or folder {name_items(identity(name) for name in missing)}",
            "Check the spelling, and that the command runs in the right folder.",
        )


def expand(
    named: Sequence[str],
    listed: Iterable[str] = (),
    *,
    follow_links: bool = False,
    passed_over: Counter[str] | None = None,
) -> Iterator[ImageInput]:
    """Images of the files, folders, patterns, `@list` files and archives named, then those of a list.

    Folders come in sorted order, each with what is below it. What is an image is told by its content. Where
    one folder or archive is all that was named, ids are paths below it; otherwise they begin with it as it
    was named, so that two folders never share an id.

    Parameters
    ----------
    follow_links : follow symbolic links below folders; a loop is a row.
    passed_over : counts, by kind, the files below folders and in archives that get no row, as they are met.
    """
    passed_over = Counter() if passed_over is None else passed_over
    alone = len(named) == 1
    for name in named:
        if name.startswith("@") and not os.path.lexists(name):
            with Path(name[1:]).open("rb") as file:
                for line in lines(file):
                    yield from _one(line, f"{line.rstrip('/')}/", follow_links, passed_over)
        elif not os.path.lexists(name) and glob.has_magic(name):
            for match in sorted(_matches(name)):
                yield from _matched(match, follow_links, passed_over)
        else:
            yield from _one(name, "" if alone else f"{name.rstrip('/')}/", follow_links, passed_over)
    for line in listed:
        yield from _one(line, f"{line.rstrip('/')}/", follow_links, passed_over)


def _matches(pattern: str) -> Iterator[str]:
    """The files and folders of a pattern.

    Raises
    ------
    UsageError : folders are nested deeper than patterns can follow.
    """
    try:
        yield from glob.iglob(pattern, recursive=True)
    except RecursionError:
        raise UsageError(
            f"the folders of {identity(pattern)} are nested too deep for a pattern", "Name the folder itself."
        ) from None


def _matched(name: str, follow_links: bool, passed_over: Counter[str]) -> Iterator[ImageInput]:
    """What a pattern matched: archives are opened, folders are not, and only images get a row."""
    if os.path.isdir(name):
        return
    kind = sniff(Path(name))
    if kind.image or kind.name == _ARCHIVE_KIND:
        yield from _one(name, f"{name}/", follow_links, passed_over)
    else:
        passed_over[kind.name] += 1


def _one(name: str, prefix: str, follow_links: bool, passed_over: Counter[str]) -> Iterator[ImageInput]:
    path = Path(name)
    # Not Path.is_dir: that raises for a name too long for the file system, and a list may hold any text.
    if os.path.isdir(path):
        for entry in walk(path, follow_links=follow_links, passed_over=passed_over):
            own = identity(f"{prefix}{entry.name}" if entry.name else prefix.rstrip("/") or name)
            if entry.refusal is not None:
                yield ImageInput(own, entry.path, refusal=entry.refusal)
                continue
            yield from below(own, entry.path, entry.kind, passed_over)
        return
    kind = sniff(path)
    if os.path.isfile(path) and (path.suffix.lower() == ARCHIVE_SUFFIX or kind.name == _ARCHIVE_KIND):
        yield from _members(path, name, prefix, passed_over)
    else:
        # A file that was named gets a row, whatever it is.
        yield from _frames(ImageInput(identity(name), path), counted_frames(path, kind) or (1,))


def below(own: str, path: Path, kind: FileKind, passed_over: Counter[str]) -> Iterator[ImageInput]:
    """The image, or each of its frames, of a file below a folder; what is no image is counted instead."""
    numbers = counted_frames(path, kind) if kind.image else ()
    if numbers == ():
        passed_over[NO_IMAGE if kind.image else kind.name] += 1
    else:
        yield from _frames(ImageInput(own, path), numbers)


def expand_bytes(name: str, content: bytes) -> Iterator[ImageInput]:
    """The image whose content is in memory, or each of its frames; `name` becomes its id."""
    source = ImageInput(name, Path(name), content=content)
    yield from _frames(source, counted_frames(content, kind_of(content[:HEAD_BYTES], name)) or (1,))


def _frames(source: ImageInput, numbers: tuple[int, ...] | ImageError) -> Iterator[ImageInput]:
    """The image itself, or each of its frames; where they could not be counted, a refusal."""
    if isinstance(numbers, ImageError):
        yield replace(source, refusal=(numbers.reason, numbers.message))
    elif len(numbers) == 1:
        yield replace(source, frame=numbers[0])
    else:
        for number in numbers:
            yield replace(source, id=f"{source.id}#{number}", frame=number)


def count_quickly(named: Sequence[str], most: int) -> int | None:
    """How many images are in files and folders; None where there are more than `most`,
    or it takes long to tell.

    Folders are not read further than that, nor in order, and frames are not counted:
    this is for a progress bar.
    """
    count, waiting = 0, list(named)
    while waiting:
        name = waiting.pop()
        if (name.startswith("@") and not os.path.lexists(name)) or name.lower().endswith(ARCHIVE_SUFFIX):
            return None
        if not os.path.lexists(name) and glob.has_magic(name):
            matches = (path for path in _matches(name) if not os.path.isdir(path) and sniff(Path(path)).image)
            waiting += islice(matches, most + 1)
        elif os.path.isdir(name):
            with suppress(OSError), os.scandir(name) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif entry.is_symlink():
                        count += has_image_suffix(entry.name) or os.path.isdir(entry.path)
                    else:
                        count += has_image_suffix(entry.name) or sniff(Path(entry.path)).image
                    if count > most:
                        return None
        else:
            count += 1
        if count > most or len(waiting) > most:
            return None
    return count


def _members(path: Path, name: str, prefix: str, passed_over: Counter[str]) -> Iterator[ImageInput]:
    try:
        found = archive_images.members(path)
    except DataError as error:
        yield ImageInput(identity(name), path, refusal=("archive_refused", error.message))
        return
    for member in found:
        source = ImageInput(identity(f"{prefix}{member.name}"), path, member=member.name)
        if member.frames != ():
            yield from _frames(source, member.frames)
        else:
            passed_over[member.kind] += 1


def load(source: ImageInput, *, max_pixels: int = MAX_PIXELS, target_px: int | None = None) -> LoadedImage:
    """The pixels of an input and notes on how it was read; see `images.load_image`.

    Raises
    ------
    ImageError : it was refused, cannot be read, or shows nothing.
    """
    if source.refusal is not None:
        raise ImageError(*source.refusal)
    content: Path | bytes = source.path if source.content is None else source.content
    if source.member is not None:
        content = archive_images.member_bytes(source.path, source.member)
    image = load_image(content, max_pixels=max_pixels, target_px=target_px, frame=source.frame)
    check_not_blank(image.pixels)
    return image
