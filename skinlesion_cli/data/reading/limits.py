"""The bounds that every reader keeps, and the checks that compare a file's header with them."""

from __future__ import annotations

import stat
from pathlib import Path

from skinlesion_cli.errors import ImageError

# A 64-megapixel RGB image takes 192 MB; dermoscopes and cameras stay far below.
MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 1 << 30
MIN_SIDE_PX = 16


def check_size(
    width: int,
    height: int,
    *,
    max_pixels: int,
    min_side_px: int = MIN_SIDE_PX,
    cost: float = 1,
    kind: str = "",
) -> None:
    """Refuse an image by its size in pixels, before memory is taken for it.

    Parameters
    ----------
    cost : how many times the memory of a plain RGB image the decoder of this `kind` needs; the limit is
        divided by it.

    Raises
    ------
    ImageError : `too_large` or `too_small`.
    """
    limit = int(max_pixels / cost)
    if width * height > limit:
        of_kind = f" for {kind}, which takes {cost:g} times the memory of other images" if cost > 1 else ""
        raise ImageError(
            "too_large",
            f"the image has {width} x {height} pixels; the limit is {limit:,}{of_kind} (--max-pixels)",
        )
    if min(width, height) < min_side_px:
        raise ImageError(
            "too_small",
            f"the image has {width} x {height} pixels; each side needs at least {min_side_px}",
        )


def check_file(path: Path) -> None:
    """Refuse what cannot be read as a file of bounded size.

    Raises
    ------
    ImageError : `missing`, `unreadable`, `not_a_file` or `too_large`.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise ImageError("missing", "the file does not exist") from None
    except (OSError, ValueError) as error:
        raise ImageError(
            "unreadable", f"cannot be opened: {getattr(error, 'strerror', None) or error}"
        ) from None
    # Opening a FIFO or a device could block for ever.
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("not_a_file", "not a regular file")
    if status.st_size > MAX_FILE_BYTES:
        raise ImageError("too_large", f"the file has more than {MAX_FILE_BYTES:,} bytes")


def read_bytes(path: Path) -> bytes:
    """The content of a file, after `check_file`.

    Raises
    ------
    ImageError : as `check_file`.
    """
    check_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError("unreadable", f"cannot be opened: {error.strerror or error}") from None
