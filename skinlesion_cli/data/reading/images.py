"""Reading an image file: the one place where pixels come from, and every way in which that can fail.

Whatever the file holds, what comes out is upright 8-bit sRGB, or an `ImageError` that says why not. Nothing
is guessed and half an image is never returned.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from skinlesion_cli.data.reading import colour, completeness, kinds, modes
from skinlesion_cli.data.reading import jpeg as jpegs
from skinlesion_cli.data.reading.dicom import decode_dicom
from skinlesion_cli.data.reading.kinds import HEAD_BYTES, FileKind, kind_of
from skinlesion_cli.data.reading.limits import MAX_PIXELS, MIN_SIDE_PX, check_file, check_size, read_bytes
from skinlesion_cli.data.reading.loaded import LoadedImage
from skinlesion_cli.data.reading.orientation import orientation_of, upright
from skinlesion_cli.data.reading.pillow_classes import pillow_class
from skinlesion_cli.errors import ImageError

# Reduced-scale decoding keeps at least this many times the pixels that are asked for on each side. On sharp
# photographs (JPEG quality 92, brought to the same size afterwards) the gradients of the result are 1 %
# weaker than without it at a margin of 2, 4 to 5 % at 1.2 and 6 to 7 % at 1.
REDUCED_MARGIN = 2.0
# Memory beside that of a plain RGB image: OpenJPEG keeps 4 bytes per sample, twice; the video decoders keep
# planes of 16 bits and their references; that of WebP keeps two canvases.
_COST = {"JPEG2000": 4, "AVIF": 2, "HEIF": 2, "WEBP": 1.5}
# Levels of 255 that a picture spans at least, without the lightest and darkest pixels. Photographs of skin
# span 60 and more.
_LEAST_LEVELS = 16
_SAMPLE_SIDE, _OUTLIERS = 64, 20
_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF", "HEIF")

# Pillow only warns of broken metadata; what matters of it is an error here. For the whole process, because
# filters that are set and reset for each image get mixed up between threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")


def read_image(source: Path | bytes, **options: Any) -> np.ndarray:
    """The pixels of `load_image`, with the same parameters and errors."""
    return load_image(source, **options).pixels


def load_image(
    source: Path | bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    min_side_px: int = MIN_SIDE_PX,
    target_px: int | None = None,
    reduced_margin: float = REDUCED_MARGIN,
    frame: int = 1,
) -> LoadedImage:
    """Read an image as upright sRGB, by its content and not by its name.

    Parameters
    ----------
    source : a file, or the content of one.
    max_pixels : refuse images with more pixels than this, before they are decoded.
    min_side_px : refuse images with a shorter side than this.
    target_px : the caller will shrink the image to about this many pixels a side. A JPEG much larger than
        that is decoded at 1/2, 1/4 or 1/8 scale.
    reduced_margin : decoding leaves at least this many times `target_px` on each side; 1 is faster and
    softer.
    frame : the frame of a DICOM file or the page of a TIFF, from 1.

    Returns
    -------
    The image with the EXIF orientation applied, embedded colour profiles converted to sRGB, 16-bit grey
    scaled from its full range to 0..255, and transparency laid over white. Of an animation it is the first
    frame.

    Raises
    ------
    ImageError : with `reason` one of `missing`, `unreadable`, `not_a_file`, `empty`, `not_an_image`,
        `truncated`, `damaged`, `too_large`, `too_small`, `too_complex`, `unsupported_mode`,
        `unsupported_kind`, `needs_extra`.
    """
    name = "" if isinstance(source, bytes) else source.name
    if _is_dicom(source, name):
        return decode_dicom(source, max_pixels=max_pixels, min_side_px=min_side_px, frame=frame)
    data = source if isinstance(source, bytes) else read_bytes(source)
    scale = 1
    with _opened(data, name, max_pixels, min_side_px, frame) as (image, header):
        if header is not None:
            if target_px is not None:
                side_px = round(target_px * reduced_margin)
                scale = jpegs.reduced_scale(header.width, header.height, side_px)
            pixels, notes = _from_jpeg(image, data, header, scale)
        else:
            image.load()
            if min(image.size) < 1:
                raise ImageError("damaged", "the image has no pixels")
            pixels, notes = _from_plugin(image, data)
        orientation = orientation_of(image)
        if image.format in _ANIMATED and getattr(image, "is_animated", False):
            notes.append("an animation: only its first frame is read")
    return LoadedImage(upright(pixels, orientation), tuple(notes), reduced=scale != 1)


def check_image(data: bytes, *, max_pixels: int = MAX_PIXELS, min_side_px: int = MIN_SIDE_PX) -> None:
    """Refuse the content of a file that is no image, is cut off or has the wrong size, without decoding it.

    Raises
    ------
    ImageError : as `load_image`, but for damage that only decoding finds.
    """
    if _is_dicom(data, ""):
        decode_dicom(data, max_pixels=max_pixels, min_side_px=min_side_px)
        return
    with _opened(data, "", max_pixels, min_side_px, 1):
        pass


def _is_dicom(source: Path | bytes, name: str) -> bool:
    if isinstance(source, bytes):
        return kind_of(source[:HEAD_BYTES], name) is kinds.DICOM
    check_file(source)
    try:
        with source.open("rb") as file:
            return kind_of(file.read(HEAD_BYTES), name) is kinds.DICOM
    except OSError as error:
        raise ImageError("unreadable", f"cannot be opened: {error.strerror or error}") from None


def check_not_blank(pixels: np.ndarray) -> None:
    """Refuse a picture that shows nothing: black, white, one colour, or too few levels to see anything.

    Values of 12 bits that are stored in 16 without a word end here too.

    Parameters
    ----------
    pixels : uint8 (height, width, 3).

    Raises
    ------
    ImageError : `blank`.
    """
    # A sample of rows and columns, the first and the last among them.
    rows, columns = (np.linspace(0, side - 1, _SAMPLE_SIDE).astype(int) for side in pixels.shape[:2])
    sample = pixels[np.ix_(rows, columns)].reshape(-1, 3)
    ordered = np.partition(sample, (_OUTLIERS, -1 - _OUTLIERS), axis=0)
    low, high = ordered[_OUTLIERS], ordered[-1 - _OUTLIERS]
    if (high - low).max() < _LEAST_LEVELS:
        raise ImageError(
            "blank", f"the picture is the same nearly everywhere: {low.min()} to {high.max()} of 255"
        )


def image_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels of the upright image, from the file's header; pixels are not decoded.

    Raises
    ------
    ImageError : it is missing, not readable, or no image.
    """
    check_file(path)
    try:
        with path.open("rb") as file:
            kind = kind_of(file.read(HEAD_BYTES), path.name)
            if kind is kinds.DICOM:
                height, width = decode_dicom(path, max_pixels=1 << 62, min_side_px=1).pixels.shape[:2]
                return width, height
            file.seek(0)
            with pillow_class(kind)(file) as image:  # type: ignore[arg-type]
                width, height = image.size
                turned = orientation_of(image) >= 5
                return (height, width) if turned else (width, height)
    except ImageError:
        raise
    except (UnidentifiedImageError, SyntaxError):
        raise ImageError("not_an_image", "this is not an image that can be read") from None
    except Exception as error:
        raise ImageError("damaged", f"the image is damaged: {error}") from None


@contextmanager
def _opened(
    data: bytes, name: str, max_pixels: int, min_side_px: int, frame: int
) -> Iterator[tuple[Any, jpegs.JpegHeader | None]]:
    """An image that passed all checks that need no decoding, and the header of a JPEG.

    What fails inside becomes an ImageError too.
    """
    if not data:
        raise ImageError("empty", "the file is empty")
    kind = kind_of(data[:HEAD_BYTES], name)
    # Where the name alone said so, the content is none of the kinds that are known.
    if not kind_of(data[:HEAD_BYTES], "").image:
        raise _not_an_image(data)
    plugin = pillow_class(kind)
    try:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        header = None
        if kind is kinds.JPEG:
            # Before Pillow, which goes through fill bytes one by one.
            header = jpegs.read_header(data)
            check_size(header.width, header.height, max_pixels=max_pixels, min_side_px=min_side_px)
            if header.jpeg_ls:
                raise ImageError(
                    "unsupported_kind", "JPEG-LS outside of DICOM is not read; convert it to PNG"
                )
            jpegs.check_scans(data, header)
        with plugin(io.BytesIO(data)) as image:
            if frame > 1:
                image.seek(frame - 1)
            width, height = image.size
            cost = _COST.get(kind.pillow, 1)
            check_size(
                width, height, max_pixels=max_pixels, min_side_px=min_side_px, cost=cost, kind=kind.name
            )
            _check_whole(image, kind, data, max_pixels)
            yield image, header
    except ImageError:
        raise
    except (UnidentifiedImageError, EOFError):
        raise _not_an_image(data) from None
    except MemoryError:
        raise ImageError("too_large", "the image does not fit into memory") from None
    except Exception as error:
        # Decoders raise nearly anything on damaged files: OSError, SyntaxError, ValueError, struct.error ...
        reason = "truncated" if "truncated" in str(error).lower() else "damaged"
        raise ImageError(reason, f"the image is {reason}: {error}") from None


def _not_an_image(data: bytes) -> ImageError:
    return ImageError("not_an_image", f"this is not an image that can be read ({_looks_like(data)})")


def _check_whole(image: Any, kind: FileKind, data: bytes, max_pixels: int) -> None:
    """Find the damage that decoders pass over in silence."""
    if kind is kinds.PNG:
        completeness.check_png(data)
    elif kind is kinds.WEBP:
        completeness.check_webp(data, image.width * image.height)
    elif kind in (kinds.AVIF, kinds.HEIF, kinds.JPEG_2000):
        completeness.check_media_boxes(data, image.width * image.height)
    elif kind is kinds.GIF:
        completeness.check_covered(image)
    elif kind is kinds.BMP:
        completeness.check_bmp(data, image)
    elif kind is kinds.TIFF:
        modes.check_tiff_values(image)
        completeness.check_tiff(data, image, max_pixels)


def _from_jpeg(image: Any, data: bytes, header: jpegs.JpegHeader, scale: int) -> tuple[np.ndarray, list[str]]:
    decoded = jpegs.decode_jpeg(data, header, scale=scale)
    profile = image.info.get("icc_profile")
    if decoded.shape[2] == 4:
        return modes.from_cmyk(255 - decoded, profile)
    return colour.from_profile(decoded, profile) if profile else (decoded, [])


def _from_plugin(image: Any, data: bytes) -> tuple[np.ndarray, list[str]]:
    pixels, notes = modes.to_rgb(image)
    if "icc_profile" not in image.info and (points := completeness.code_points(data)):
        pixels, more = colour.from_code_points(pixels, *points)
        notes += more
    return pixels, notes


def _looks_like(data: bytes) -> str:
    head = data[:512].lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<svg")):
        return "it looks like a web page"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        return "it looks like text"
    return f"its first bytes are {data[:4].hex(' ')}"
