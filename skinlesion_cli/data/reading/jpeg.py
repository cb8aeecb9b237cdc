"""JPEG data decoded strictly: every block of every scan has to be coded.

Pillow decodes with the warnings of libjpeg switched off, so that a cut or holed file comes out filled with
grey. `simplejpeg` is the same libjpeg-turbo with warnings as errors; on intact files both give the same
pixels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import simplejpeg

from skinlesion_cli.errors import ImageError

# A progressive file of the usual encoders has about ten scans, and each goes over the whole image.
MAX_SCANS = 64
MAX_SCANNED_PIXELS = 1_000_000_000
# Between two markers of real files there is less than a page of fill bytes.
_MAX_FILL_BYTES = 1 << 16
_MAX_SEGMENTS = 4096
_FILL = re.compile(rb"\xff+")
# In entropy-coded data 0xFF is followed by 0x00, a restart marker or a fill byte.
_MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_JPEG_LS = 0xF7
_FRAMES = frozenset({*range(0xC0, 0xD0), _JPEG_LS} - {0xC4, 0xC8, 0xCC})
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_START_OF_SCAN, _END_OF_IMAGE, _APP0, _ADOBE, _HUFFMAN_TABLES = 0xDA, 0xD9, 0xE0, 0xEE, 0xC4
_COEFFICIENTS = 64
# So many zero bytes are more than forty coefficients of one value in a row, where zeros do not mean a flat
# area.
_HOLE = bytes(16)
# A warning of libjpeg about a segment that has nothing to do with the pixels.
_HARMLESS = "unknown JFIF revision number"


@dataclass(frozen=True)
class JpegHeader:
    """What the segments before the first scan say.

    `components` are the identifiers of the colour components, `bits` those of a sample. `adobe` is the
    transform of an Adobe marker, which says how the colours are coded. `tables` has the symbol of the
    shortest code of each Huffman table, which is all zeros. `scan_start` is the byte at which the first
    scan's marker stands, `scan` its header.
    """

    width: int
    height: int
    components: bytes
    bits: int
    progressive: bool
    jpeg_ls: bool
    jfif: bool
    adobe: int | None
    tables: dict[int, int]
    scan_start: int
    scan: bytes


def read_header(data: bytes) -> JpegHeader:
    """Parse the segments of a JPEG up to its first scan.

    Raises
    ------
    ImageError : `truncated` or `damaged`: there is no frame, no scan or no end; or the file is mostly
    filling.
    """
    position, jfif, frame = 2, False, None
    adobe: int | None = None
    tables: dict[int, int] = {}
    for _ in range(_MAX_SEGMENTS):
        fill = _FILL.match(data, position)
        if fill is None:
            raise _truncated("the JPEG data ends or is damaged before its first scan")
        if fill.end() - position > _MAX_FILL_BYTES:
            raise ImageError("damaged", "the JPEG holds too many fill bytes")
        marker = data[fill.end()] if fill.end() < len(data) else _END_OF_IMAGE
        position = fill.end() + 1
        if marker == _END_OF_IMAGE:
            raise _truncated("the JPEG has no image data")
        if marker == 0x01 or marker in range(0xD0, 0xD9):
            continue
        length = int.from_bytes(data[position : position + 2], "big")
        segment = data[position + 2 : position + length]
        if marker in _FRAMES:
            if len(segment) < 6:
                raise _truncated("the JPEG's frame header is cut off")
            frame = (marker, segment)
        elif marker == _ADOBE and segment[:5] == b"Adobe":
            adobe = segment[11] if len(segment) > 11 else 0
        elif marker == _APP0 and segment[:5] == b"JFIF\0":
            jfif = True
        elif marker == _HUFFMAN_TABLES:
            tables |= _shortest_codes(segment)
        elif marker == _START_OF_SCAN:
            if frame is None:
                raise ImageError("damaged", "the JPEG has a scan before its frame header")
            kind, fields = frame
            return JpegHeader(
                width=int.from_bytes(fields[3:5], "big"),
                height=int.from_bytes(fields[1:3], "big"),
                components=fields[6 : 6 + 3 * fields[5] : 3],
                bits=fields[0],
                progressive=kind in _PROGRESSIVE,
                jpeg_ls=kind == _JPEG_LS,
                jfif=jfif,
                adobe=adobe,
                tables=tables,
                scan_start=fill.end() - 1,
                scan=segment,
            )
        position += length
    raise ImageError("damaged", "the JPEG has too many segments")


def is_ycc(header: JpegHeader) -> bool:
    """Whether libjpeg takes three components for YCbCr, and converts them."""
    return header.jfif or header.adobe == 1 or (header.adobe is None and header.components == b"\1\2\3")


def check_scans(data: bytes, header: JpegHeader) -> None:
    """Refuse JPEG data that is cut off or would take absurd time to decode; pixels are not decoded.

    Raises
    ------
    ImageError : `truncated` or `too_complex`.
    """
    # From the end, where it is in a whole file; inside a scan these two bytes cannot follow one another.
    end = data.rfind(b"\xff\xd9", header.scan_start)
    if end < 0:
        raise _truncated("the end of the JPEG data is missing")
    if not header.progressive and header.scan[:1] == bytes([len(header.components)]):
        _refuse_hole(data, header.scan_start, end, header.scan, header.tables)
    else:
        _check_many_scans(data, header)


def _check_many_scans(data: bytes, header: JpegHeader) -> None:
    """Several scans: not too many, and together they code all bits of all coefficients of all components."""
    # Lowest bit coded so far, by component and coefficient.
    lowest: dict[int, list[int]] = {component: [99] * _COEFFICIENTS for component in header.components}
    tables, position, count = dict(header.tables), header.scan_start, 0
    while found := _MARKER_AFTER_SCAN.search(data, position):
        marker, position = data[found.start() + 1], found.end()
        if marker == _END_OF_IMAGE:
            break
        length = int.from_bytes(data[position : position + 2], "big")
        segment = data[position + 2 : position + length]
        position += length
        if marker == _HUFFMAN_TABLES:
            tables |= _shortest_codes(segment)
        if marker != _START_OF_SCAN or len(segment) < 6:
            continue
        count += 1
        if count > MAX_SCANS or count * header.width * header.height > MAX_SCANNED_PIXELS:
            raise ImageError(
                "too_complex",
                f"the JPEG has at least {count} scans of {header.width} x {header.height} pixels; save it "
                "again as a baseline JPEG",
            )
        first, last, approximation = segment[-3:] if header.progressive else (0, _COEFFICIENTS - 1, 0)
        for component in segment[1:-3:2]:
            for coefficient in range(first, min(last, _COEFFICIENTS - 1) + 1):
                if component in lowest:
                    lowest[component][coefficient] = min(lowest[component][coefficient], approximation & 15)
        if approximation >> 4 == 0:
            end = _MARKER_AFTER_SCAN.search(data, position)
            _refuse_hole(data, position, end.start() if end else len(data), segment, tables)
    if any(bit for bits in lowest.values() for bit in bits):
        raise _truncated("some scans of the JPEG are missing")


def decode_jpeg(data: bytes, header: JpegHeader, *, scale: int = 1) -> np.ndarray:
    """Decode a whole JPEG.

    Parameters
    ----------
    header : what `read_header` returned; `check_scans` has passed.
    scale : 1, 2, 4 or 8: decode at 1/scale of the size, rounded up.

    Returns
    -------
    uint8 (height, width, 3) RGB, or (height, width, 4) CMYK as stored, where the file has four components.

    Raises
    ------
    ImageError : `truncated` or `damaged`: some part of the image is not coded, or the coding is wrong.
    """
    if len(header.components) == 4 and header.adobe is None:
        raise ImageError(
            "unsupported_mode",
            "a CMYK JPEG without an Adobe marker: whether its inks are inverted is not recorded; "
            "convert it to RGB",
        )
    space = "CMYK" if len(header.components) == 4 else "RGB"
    # The smallest size that is not below these is the one at this scale.
    least = (-(-header.height // scale), -(-header.width // scale)) if scale > 1 else (0, 0)
    try:
        return _decoded(data, space, least)
    except ValueError as error:
        if _HARMLESS not in str(error):
            raise _failure(error) from None
    try:
        return _decoded(_without_jfif(data, header), space, least)
    except ValueError as error:
        raise _failure(error) from None


def reduced_scale(width: int, height: int, side_px: int) -> int:
    """The largest of 8, 4, 2 and 1 at which both sides keep `side_px`."""
    return next((s for s in (8, 4, 2) if min(width, height) >= s * side_px), 1)


def _decoded(data: bytes, space: str, least: tuple[int, int]) -> np.ndarray:
    result: np.ndarray = simplejpeg.decode_jpeg(
        data, space, min_height=least[0], min_width=least[1], strict=True
    )
    return result


def _failure(error: ValueError) -> ImageError:
    reason = "truncated" if "premature" in str(error).lower() else "damaged"
    return ImageError(reason, f"the image is {reason}: {error}")


def _without_jfif(data: bytes, header: JpegHeader) -> bytes:
    """The same JPEG without JFIF segments, about which the decoder warned."""
    kept, position = [b"\xff\xd8"], 2
    while position < header.scan_start:
        fill = _FILL.match(data, position)
        if fill is None:
            break
        marker = data[fill.end()]
        end = fill.end() + 1 + int.from_bytes(data[fill.end() + 1 : fill.end() + 3], "big")
        if marker not in range(0xE0, 0xEE) and marker not in (0xEF, 0xFE):
            kept.append(data[fill.end() - 1 : end])
        position = end
    return b"".join(kept) + data[header.scan_start :]


def _shortest_codes(segment: bytes) -> dict[int, int]:
    """Of a segment of Huffman tables: class and number of each -> the symbol whose code is all zeros."""
    shortest, position = {}, 0
    while position + 17 < len(segment):
        count = sum(segment[position + 1 : position + 17])
        shortest[segment[position]] = segment[position + 17]
        position += 17 + count
    return shortest


def _refuse_hole(data: bytes, start: int, end: int, scan: bytes, tables: dict[int, int]) -> None:
    """Refuse a run of zero bytes, unless the tables are such that it codes a flat area.

    Codes synchronise themselves again behind a hole, and with the usual tables the zeros stand for about as
    many blocks as were there: no decoder notices.
    """
    if data.find(_HOLE, start, end) < 0:
        return
    selectors = scan[2:-3:2]
    direct = [tables.get(selector >> 4) for selector in selectors]
    others = [tables.get(16 + (selector & 15)) for selector in selectors]
    only_direct = scan[-3:-1] == b"\0\0"
    # Difference 0 of the direct coefficient, then end of block: such zeros are flat blocks.
    flat = all(symbol in (0, None) for symbol in direct) and (
        only_direct or all(symbol is None or symbol & 15 == 0 for symbol in others)
    )
    if not flat:
        raise ImageError("damaged", "the image is damaged: zero bytes stand where pixels are coded")


def _truncated(why: str) -> ImageError:
    return ImageError("truncated", f"the image is truncated: {why}")
