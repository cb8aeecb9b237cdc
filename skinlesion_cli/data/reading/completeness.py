"""Whether every row of an image was coded, for the kinds whose decoders fill in what is missing.

JPEG is decoded strictly instead, see `jpeg.py`; the decoders of GIF, TIFF and JPEG 2000 refuse missing data
themselves, apart from what is checked here.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

from PIL import Image, TiffImagePlugin

from skinlesion_cli.data.reading.jpeg import check_scans, decode_jpeg, read_header
from skinlesion_cli.data.reading.limits import check_size
from skinlesion_cli.errors import ImageError

_WINDOW_BYTES = 1 << 20
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# First column, first row, and the steps, of the seven passes (PNG specification, 8.2).
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
# Coded data look random: outside of flat areas the longest runs of zero bytes
# in intact files are of 24 bytes.
_HOLE_BYTES = 64
_ZEROS = re.compile(rb"\0{64,}")
# In arithmetic coding large flat areas become zeros: a byte stands for 13,000 pixels or more.
_FLAT_PIXELS_PER_BYTE = 12_000
_MAX_CHUNKS = 100_000


def check_png(data: bytes) -> None:
    """Verify the checksum of every chunk, and that the pixel data hold as many bytes as the header says.

    Raises
    ------
    ImageError : `damaged` or `truncated`.
    """
    header, inflated, expected = b"", 0, 0
    stream = zlib.decompressobj()
    ended = False
    for kind, content in _png_chunks(data):
        if kind == b"IHDR" and len(content) == 13:
            header, expected = bytes(content), _png_bytes(bytes(content))
        elif kind == b"IDAT" and not stream.eof:
            try:
                inflated += _inflated(stream, content, expected - inflated)
            except zlib.error as error:
                raise ImageError("damaged", f"the image is damaged: {error}") from None
        ended = ended or kind == b"IEND"
    if not header or not ended:
        raise ImageError("truncated", "the image is truncated: the end of the PNG is missing")
    if inflated < expected:
        raise ImageError(
            "truncated",
            f"the image is truncated: {inflated:,} of {expected:,} bytes of pixel data are there",
        )


def check_webp(data: bytes, pixels: int) -> None:
    """Refuse holes of zeros in the coded data, which the decoder takes for flat areas.

    Raises
    ------
    ImageError : `damaged`.
    """
    size = 8 + int.from_bytes(data[4:8], "little")
    if size > len(data):
        raise ImageError("truncated", f"the image is truncated: {len(data):,} of {size:,} bytes are there")
    position, animated = 12, False
    while position + 8 <= size:
        kind, length = (
            data[position : position + 4],
            int.from_bytes(data[position + 4 : position + 8], "little"),
        )
        if kind in (b"VP8 ", b"VP8L", b"ANMF"):
            if kind == b"ANMF" and not animated:
                _check_first_frame(data[position + 8 : position + 24], pixels)
                animated = True
            allowed = _HOLE_BYTES + (0 if kind == b"VP8L" else pixels // _FLAT_PIXELS_PER_BYTE)
            refuse_holes(data, position + 8, position + 8 + length, allowed)
        position += 8 + length + length % 2


def _check_first_frame(header: bytes, pixels: int) -> None:
    """The first frame of an animated WebP has to cover the picture; the rest would be transparent."""
    width, height = (1 + int.from_bytes(header[at : at + 3], "little") for at in (6, 9))
    if width * height < pixels:
        raise ImageError(
            "truncated",
            f"the image is truncated: its first frame has {width} x {height} pixels of {pixels:,}",
        )


def check_media_boxes(data: bytes, pixels: int) -> None:
    """The same for AVIF, HEIF and JPEG 2000, whose coded data lie in boxes or in a bare codestream."""
    position, allowed = 0, _HOLE_BYTES + pixels // _FLAT_PIXELS_PER_BYTE
    if data[4:8] not in (b"ftyp", b"jP  "):
        refuse_holes(data, 0, len(data), allowed)
        return
    while position + 8 <= len(data):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        start = position + 8
        if length == 1:
            length, start = int.from_bytes(data[start : start + 8], "big"), position + 16
        end = len(data) if length == 0 else position + length
        if end > len(data) or end < start:
            raise ImageError("truncated", "the image is truncated: a part of the file is missing")
        if kind in (b"mdat", b"jp2c"):
            refuse_holes(data, start, end, allowed)
        position = end


def check_bmp(data: bytes, image: Image.Image) -> None:
    """Refuse a run-length coded BMP that skips pixels: they would come out black.

    Raises
    ------
    ImageError : `truncated` or `damaged`.
    """
    compression = int.from_bytes(data[30:34], "little") if int.from_bytes(data[14:18], "little") >= 40 else 0
    if compression not in (1, 2):
        return
    width, height = image.size
    coded = _run_lengths(data, int.from_bytes(data[10:14], "little"), width, height, nibbles=compression == 2)
    if coded < width * height:
        raise ImageError(
            "truncated", f"the image is truncated: {coded:,} of {width * height:,} pixels are coded"
        )


def check_tiff(data: bytes, image: TiffImagePlugin.TiffImageFile, max_pixels: int) -> None:
    """Check that all strips or tiles of a page lie in the file, and decode those that are JPEG strictly.

    Raises
    ------
    ImageError : `truncated` or `damaged`; `too_large` for a tile, which is decoded whole however little of
        it the image needs.
    """
    tags = image.tag_v2
    tile_pixels = int(tags.get(322) or 0) * int(tags.get(323) or 0)
    if tile_pixels > max_pixels:
        raise ImageError(
            "too_large",
            f"the TIFF has tiles of {tile_pixels:,} pixels; the limit is {max_pixels:,} (--max-pixels)",
        )
    offsets = _numbers(tags.get(324) or tags.get(273))
    sizes = _numbers(tags.get(325) or tags.get(279))
    if not sizes and len(offsets) == 1:
        return
    wanted = _tiff_parts(image)
    if len(offsets) < wanted or len(sizes) < wanted:
        raise ImageError(
            "truncated",
            f"the image is truncated: {min(len(offsets), len(sizes))} of {wanted} strips are there",
        )
    tables = tags.get(347)
    for index, (offset, size) in enumerate(zip(offsets, sizes, strict=False)):
        if size == 0 or offset == 0 or offset + size > len(data):
            raise ImageError("truncated", "the image is truncated: strips of pixel data are missing")
        if tags.get(259) == 7:
            strip = data[offset : offset + size]
            whole = strip if not tables else bytes(tables)[:-2] + strip[2:]
            _check_jpeg_strip(whole, _part_size(image, index), max_pixels)


def _check_jpeg_strip(jpeg: bytes, least: tuple[int, int], max_pixels: int) -> None:
    # Colours do not matter here: only whether every block was coded.
    header = read_header(jpeg)
    if header.width < least[0] or header.height < least[1]:
        raise ImageError(
            "truncated",
            f"the image is truncated: a strip of {least[0]} x {least[1]} pixels holds "
            f"{header.width} x {header.height}",
        )
    check_size(header.width, header.height, max_pixels=max_pixels, min_side_px=1)
    check_scans(jpeg, header)
    if len(header.components) in (1, 3):
        decode_jpeg(jpeg, header)


def _part_size(image: TiffImagePlugin.TiffImageFile, index: int) -> tuple[int, int]:
    """Width and height of the pixels that a strip has to hold; of a tile in one plane, without chroma."""
    tags = image.tag_v2
    width, height = image.size
    if int(tags.get(284, 1)) == 2:
        # Planes may be sampled at half the size.
        return 1, 1
    if tags.get(322) and tags.get(323):
        return int(tags[322]), int(tags[323])
    rows = min(int(tags.get(278, height)) or height, height)
    return width, min(rows, height - index * rows)


def check_covered(image: Image.Image) -> None:
    """Refuse a GIF whose first frame does not cover the picture: the rest would be its background.

    Raises
    ------
    ImageError : `truncated`.
    """
    width, height = image.size
    extents = [tile[1] for tile in getattr(image, "tile", ())]
    if not any(
        box and box[0] <= 0 and box[1] <= 0 and box[2] >= width and box[3] >= height for box in extents
    ):
        raise ImageError(
            "truncated", f"the image is truncated: its frame covers a part of {width} x {height} pixels"
        )


def _tiff_parts(image: TiffImagePlugin.TiffImageFile) -> int:
    """Strips or tiles that a page needs."""
    tags = image.tag_v2
    width, height = image.size
    planes = int(tags.get(277, 1)) if tags.get(284, 1) == 2 else 1
    if tags.get(322) and tags.get(323):
        return -(-width // int(tags[322])) * -(-height // int(tags[323])) * planes
    rows = min(int(tags.get(278, height)) or height, height)
    return -(-height // rows) * planes


def _numbers(value: object) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, tuple) else (int(value),)  # type: ignore[call-overload]


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view, position = memoryview(data), 8
    for _ in range(_MAX_CHUNKS):
        if position + 12 > len(data):
            return
        length = int.from_bytes(data[position : position + 4], "big")
        kind, end = data[position + 4 : position + 8], position + 8 + length
        if end + 4 > len(data):
            raise ImageError("truncated", "the image is truncated: a chunk of the PNG is cut off")
        if zlib.crc32(view[position + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise ImageError("damaged", f"the image is damaged: the checksum of chunk {kind!r} is wrong")
        yield kind, view[position + 8 : end]
        if kind == b"IEND":
            return
        position = end + 4
    raise ImageError("too_complex", f"the PNG has more than {_MAX_CHUNKS:,} chunks")


def _png_bytes(header: bytes) -> int:
    """Bytes of the inflated pixel data that an IHDR chunk announces, filter bytes included."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    bits = depth * _PNG_CHANNELS.get(colour, 1)
    if not interlaced:
        count: int = height * (1 + -(-width * bits // 8))
        return count
    total = 0
    for column, row, across, down in _ADAM7:
        columns, rows = -(-(width - column) // across), -(-(height - row) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * bits // 8))
    return total


def _inflated(stream: zlib._Decompress, content: memoryview, wanted: int) -> int:
    """Bytes that a piece of deflated data unpacks to; no more than a little over `wanted` are unpacked."""
    count = 0
    pending: bytes | memoryview = content
    while pending and not stream.eof and count <= wanted:
        count += len(stream.decompress(pending, _WINDOW_BYTES))
        pending = stream.unconsumed_tail
    return count


def _run_lengths(data: bytes, position: int, width: int, height: int, *, nibbles: bool) -> int:
    """Pixels that the runs of a BMP set; each at most once, since runs only move forward."""
    coded, column, row = 0, 0, 0
    while position + 2 <= len(data) and row < height:
        count, value = data[position], data[position + 1]
        position += 2
        if count:
            coded += min(count, max(width - column, 0))
            column += count
        elif value == 0:
            column, row = 0, row + 1
        elif value == 1:
            break
        elif value == 2:
            column, row = column + data[position] if position < len(data) else column, row + 1
            break
        else:
            size = -(-value // 2) if nibbles else value
            coded += min(value, max(width - column, 0)) if position + size <= len(data) else 0
            column += value
            position += size + size % 2
    return coded


def refuse_holes(data: bytes, start: int, end: int, allowed: int = _HOLE_BYTES) -> None:
    """Refuse more zero bytes in a row than `allowed` in coded data.

    Raises
    ------
    ImageError : `damaged`.
    """
    for zeros in _ZEROS.finditer(data, start, min(end, len(data))):
        if len(zeros.group()) > allowed:
            raise ImageError(
                "damaged",
                f"the image is damaged: {len(zeros.group()):,} zero bytes stand where pixels are coded",
            )


def code_points(data: bytes) -> tuple[int, int] | None:
    """Primaries and transfer characteristics (ITU-T H.273) that a PNG, AVIF or HEIF names;
    None where it does not.
    """
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        at = data.find(b"cICP", 0, 4096)
        return (data[at + 4], data[at + 5]) if at > 0 and at + 6 <= len(data) else None
    at = data.find(b"colrnclx", 0, 1 << 16) if data[4:8] == b"ftyp" else -1
    if at < 0 or at + 12 > len(data):
        return None
    return int.from_bytes(data[at + 8 : at + 10], "big"), int.from_bytes(data[at + 10 : at + 12], "big")
