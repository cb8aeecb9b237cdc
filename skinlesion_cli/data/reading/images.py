"""Reading an image file: the one place where pixels come from, and every way in which that can fail.

Whatever the file holds, what comes out is upright 8-bit RGB, or an `ImageError` that says why not. Nothing is
guessed and no half image is ever returned.
"""

from __future__ import annotations

import io
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

from skinlesion_cli.errors import ImageError

# A 64-megapixel RGB image takes 192 MB; dermoscopes and cameras stay far below.
MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 1 << 30
MIN_SIDE_PX = 16
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
# Only these decoders are tried (JPEG includes MPO): Pillow knows more, and some start other programs (EPS).
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")
# Transparent parts are shown over white: of the two usual backgrounds the one nearer to skin.
_BACKGROUND = (255, 255, 255)
# Reduced-scale decoding keeps at least this many times the pixels that are asked for on each side. On sharp
# photographs (JPEG quality 92, brought to the same size afterwards) the gradients of the result are 1 % weaker
# than without it at a margin of 2, 4 to 5 % at 1.2 and 6 to 7 % at 1.
REDUCED_MARGIN = 2.0
_ORIENTATION_TAG = 0x0112
# Loading these two here spares Pillow the search through all of its plugins in the first file of their kind.
_PLUGINS = (TiffImagePlugin, WebPImagePlugin)

# Pillow only warns of a bomb, and of broken metadata; what matters of it is an error here. For the whole
# process, because filters that are set and reset for each image get mixed up between threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")


def read_image(
    source: Path | bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    min_side_px: int = MIN_SIDE_PX,
    target_px: int | None = None,
    reduced_margin: float = REDUCED_MARGIN,
) -> np.ndarray:
    """Read an image as upright RGB.

    Parameters
    ----------
    source : a file, or the content of one.
    max_pixels : refuse images with more pixels than this, before they are decoded.
    min_side_px : refuse images with a shorter side than this.
    target_px : the caller will shrink the image to about this many pixels a side. A JPEG much larger than
        that is decoded at 1/2, 1/4 or 1/8 scale.
    reduced_margin : decoding leaves at least this many times `target_px` on each side; 1 is faster and softer.

    Returns
    -------
    uint8 array of shape (height, width, 3): RGB, with the EXIF orientation applied. 16-bit grey is scaled
    from 0..65535 to 0..255, transparency is laid over white, animations and stacks give their first frame.

    Raises
    ------
    ImageError : with `reason` one of `missing`, `unreadable`, `not_a_file`, `empty`, `not_an_image`,
        `truncated`, `damaged`, `too_large`, `too_small`, `unsupported_mode`.
    """
    data = source if isinstance(source, bytes) else _read_bytes(source)
    with _opened(data, max_pixels, min_side_px) as image:
        if target_px is not None and image.format in ("JPEG", "MPO"):
            side_px = round(target_px * reduced_margin)
            image.draft(None, (side_px, side_px))
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        image.load()
        return np.asarray(_to_rgb(_upright(image)))


def check_image(data: bytes, *, max_pixels: int = MAX_PIXELS, min_side_px: int = MIN_SIDE_PX) -> None:
    """Refuse the content of a file that is no image, is cut off or has the wrong size, without decoding it.

    Raises
    ------
    ImageError : as `read_image`, but for damage that only decoding finds.
    """
    with _opened(data, max_pixels, min_side_px):
        pass


@contextmanager
def _opened(data: bytes, max_pixels: int, min_side_px: int) -> Iterator[Image.Image]:
    """An image that passed all checks that need no decoding; what fails inside becomes an ImageError too."""
    if not data:
        raise ImageError("empty", "the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_size(image, max_pixels, min_side_px)
            _check_whole(image, data)
            yield image
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError("not_an_image", f"this is no image that can be read ({_looks_like(data)})") from None
    except Image.DecompressionBombError:
        raise _too_large("", min(max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or max_pixels))) from None
    except MemoryError:
        raise ImageError("too_large", "the image does not fit into memory") from None
    except Exception as error:
        # Decoders raise nearly anything on damaged files: OSError, SyntaxError, ValueError, struct.error ...
        reason = "truncated" if "truncated" in str(error).lower() else "damaged"
        raise ImageError(reason, f"the image is {reason}: {error}") from None


def image_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels of the upright image, from the file's header; pixels are not decoded.

    Raises
    ------
    ImageError : it is missing, not readable, or no image.
    """
    _check_file(path)
    try:
        with Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            turned = _orientation(image) >= 5
            return (height, width) if turned else (width, height)
    except UnidentifiedImageError:
        raise ImageError("not_an_image", "this is no image that can be read") from None
    except Exception as error:
        raise ImageError("damaged", f"the image is damaged: {error}") from None


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise ImageError("missing", "the file is not there") from None
    except OSError as error:
        raise ImageError("unreadable", f"cannot be opened: {error.strerror or error}") from None
    # A FIFO or a device would block for ever.
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("not_a_file", "not a regular file")
    if status.st_size > MAX_FILE_BYTES:
        raise ImageError("too_large", f"the file has more than {MAX_FILE_BYTES:,} bytes")


def _read_bytes(path: Path) -> bytes:
    _check_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError("unreadable", f"cannot be opened: {error.strerror or error}") from None


def _too_large(size_px: str, max_pixels: int) -> ImageError:
    return ImageError(
        "too_large",
        f"the image has {size_px or 'far too many'} pixels; the limit is {max_pixels:,} (--max-pixels)",
    )


def _check_size(image: Image.Image, max_pixels: int, min_side_px: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise _too_large(f"{width} x {height}", max_pixels)
    if min(width, height) < min_side_px:
        raise ImageError(
            "too_small", f"the image has {width} x {height} pixels; at least {min_side_px} a side are needed"
        )


def _check_whole(image: Image.Image, data: bytes) -> None:
    """Find the damage that decoders pass over in silence."""
    if image.format == "PNG":
        # Decoding skips the checksums of the pixel data; verifying does not.
        with Image.open(io.BytesIO(data), formats=("PNG",)) as again:
            again.verify()
    elif image.format in ("JPEG", "MPO") and not _jpeg_ends(data):
        # A half-fetched file that was given its full length is padded with zeros, which decode as grey.
        raise ImageError("truncated", "the image is truncated: the end of the JPEG data is missing")


def _jpeg_ends(data: bytes) -> bool:
    """Whether an end-of-image marker follows the first scan; a thumbnail has its own, before that."""
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return False
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == 0xDA:  # start of scan
            # From the end, where it is in a whole file; inside a scan these two bytes cannot follow one another.
            return data.rfind(b"\xff\xd9", position) >= 0
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:
        # An EXIF block that cannot be read says nothing about the orientation; the pixels are intact.
        return 1
    return orientation if orientation in range(2, 9) else 1


def _upright(image: Image.Image) -> Image.Image:
    return image if _orientation(image) == 1 else ImageOps.exif_transpose(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        return _from_16_bit(np.asarray(image))
    if image.mode == "I" and image.format == "PNG":
        return _from_16_bit(np.asarray(image))
    if image.mode in ("I", "F"):
        # The range of such values is written nowhere; any scale would be a guess.
        raise ImageError(
            "unsupported_mode", f"{image.format} with 32-bit pixels: the range of values is unknown"
        )
    if image.mode in ("RGBA", "LA", "La", "RGBa", "PA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        flat = Image.new("RGBA", layered.size, (*_BACKGROUND, 255))
        flat.alpha_composite(layered)
        return flat.convert("RGB")
    return image.convert("RGB")


def _from_16_bit(values: np.ndarray) -> Image.Image:
    # 65535 / 255 = 257: full scale stays full scale.
    grey = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _looks_like(data: bytes) -> str:
    head = data[:512].lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg")):
        return "it looks like a web page"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        return "it looks like text"
    return f"its first bytes are {data[:4].hex(' ')}"
