"""Which frames of a file are images of their own: the frames of DICOM, the pages of TIFF."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

from PIL import TiffImagePlugin

from skinlesion_cli.data.reading import kinds
from skinlesion_cli.data.reading.dicom import count_frames
from skinlesion_cli.data.reading.kinds import FileKind
from skinlesion_cli.errors import ImageError

MAX_PAGES: Final = 1000
# What a file is counted as that has none.
NO_IMAGE: Final = "DICOM without an image"
# NewSubfileType (TIFF 6.0, 254): a smaller copy of another page, or a mask.
_SUBFILE_TYPE, _REDUCED, _MASK = 254, 1, 4


def counted_frames(source: Path | bytes, kind: FileKind) -> tuple[int, ...] | ImageError:
    """`frame_numbers`, or its error: what to say of the file."""
    try:
        return frame_numbers(source, kind)
    except ImageError as error:
        return error


def frame_numbers(source: Path | bytes, kind: FileKind) -> tuple[int, ...]:
    """Numbers, from 1, of the frames that are images; empty where a DICOM file holds none.

    What cannot be read counts as one frame, so that it gets its row. Animations are one image.

    Raises
    ------
    ImageError : `too_complex`: there are more frames than anybody photographs, or than the file can hold.
    """
    if kind is kinds.DICOM:
        return tuple(range(1, count_frames(source) + 1))
    if kind is not kinds.TIFF:
        return (1,)
    try:
        with TiffImagePlugin.TiffImageFile(
            io.BytesIO(source) if isinstance(source, bytes) else source
        ) as image:
            return _pages(image)
    except ImageError:
        raise
    except Exception:
        # Pillow raises nearly anything on damaged directories; reading the page will say what is wrong.
        return (1,)


def _pages(image: TiffImagePlugin.TiffImageFile) -> tuple[int, ...]:
    pages = []
    for number in range(1, MAX_PAGES + 2):
        try:
            image.seek(number - 1)
        except EOFError:
            break
        if not int(image.tag_v2.get(_SUBFILE_TYPE, 0)) & (_REDUCED | _MASK):
            pages.append(number)
    if len(pages) > MAX_PAGES:
        raise ImageError("too_complex", f"the TIFF has more than {MAX_PAGES:,} pages; split it")
    return tuple(pages) or (1,)
