"""Images of every kind of which a part is not coded, made from one picture;
decoders fill in what is missing.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 128, 96


def picture(seed: int = 5) -> Image.Image:
    """Coloured blobs, 128 x 96, with detail enough that every block is coded."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray(np.clip(smooth + random.integers(-12, 13, smooth.shape), 0, 255).astype(np.uint8))


def encode(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def jpeg(**options) -> bytes:
    return encode(picture(), "JPEG", quality=90, **options)


def cut_jpeg(data: bytes, share: float = 0.5) -> bytes:
    """The first part, with an end marker as if it were whole."""
    return data[: int(len(data) * share)].rstrip(b"\xff") + b"\xff\xd9"


def holed(data: bytes, start: float = 0.5, end: float = 0.7) -> bytes:
    """Zeros where a part of the data was."""
    first, last = int(len(data) * start), int(len(data) * end)
    return data[:first] + bytes(last - first) + data[last:]


def taller_jpeg(data: bytes) -> bytes:
    """The same data below a header of twice the height."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">H", 2 * HEIGHT) + data[at + 2 :]


def without_piece(data: bytes) -> bytes:
    """A tenth of it left out from the middle."""
    return data[: len(data) // 2] + data[len(data) // 2 + len(data) // 10 :]


def without_restart_intervals() -> bytes:
    """Eight restart intervals left out, so that the numbers of the markers go on rightly."""
    data = jpeg(restart_marker_blocks=2)
    marks = [at for at in range(len(data) - 1) if data[at] == 0xFF and 0xD0 <= data[at + 1] <= 0xD7]
    return data[: marks[0]] + data[marks[8] :]


def first_scans(scans: int) -> bytes:
    """A progressive JPEG of its first scans alone: coarse all over."""
    data = jpeg(progressive=True)
    starts = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]
    tables = data.rfind(b"\xff\xc4", 0, starts[scans])
    return data[: min(tables, starts[scans]) if tables > starts[scans - 1] else starts[scans]] + b"\xff\xd9"


def png_of(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks, with right checksums."""
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in chunks:
        data += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return data


def png_header(
    width: int = WIDTH, height: int = HEIGHT, bits: int = 8, interlaced: int = 0
) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, interlaced)


def png_rows(count: int, *, header_height: int = HEIGHT) -> bytes:
    """A PNG whose pixel data end, properly, after some rows."""
    rows = b"".join(b"\0" + line.tobytes() for line in np.asarray(picture())[:count])
    return png_of(png_header(height=header_height), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))


def bmp_of_skips(*, early_end: bool) -> bytes:
    """A run-length coded grey BMP: 96 rows, the upper half skipped by a jump or left out at the end."""
    lines = np.asarray(picture().convert("L"))[::-1]
    coded = bytearray()
    for row in range(HEIGHT // 2):
        for value in lines[row]:
            coded += bytes([1, int(value)])
        coded += b"\0\0"
    if not early_end:
        coded += b"\0\2" + bytes([0, HEIGHT // 2 - 1])
    coded += b"\0\1"
    palette = b"".join(bytes([value, value, value, 0]) for value in range(256))
    offset = 14 + 40 + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 8, 1, len(coded), 2835, 2835, 256, 0)
    return b"BM" + struct.pack("<IHHI", offset + len(coded), 0, 0, offset) + info + palette + bytes(coded)


def whole_rle_bmp() -> bytes:
    """The same with all of its rows."""
    data = bmp_of_skips(early_end=True)
    offset = struct.unpack("<I", data[10:14])[0]
    lines = np.asarray(picture().convert("L"))[::-1]
    coded = b"".join(b"".join(bytes([1, int(v)]) for v in line) + b"\0\0" for line in lines) + b"\0\1"
    return data[:offset] + coded


def gif_cut() -> bytes:
    """Half of the image data, then the end of the blocks and the trailer."""
    data = encode(picture().convert("P", palette=Image.Palette.ADAPTIVE), "GIF")
    start = data.rindex(b"\x2c", 0, data.index(bytes([8, 255]))) + 10 + 1
    blocks, at = [], start
    while data[at]:
        blocks.append(data[at : at + 1 + data[at]])
        at += 1 + data[at]
    return data[:start] + b"".join(blocks[: len(blocks) // 2]) + b"\0;"


def tiff_cut(compression: str | None, *, rows_per_strip: int = 16, zero_size: bool = False) -> bytes:
    """A TIFF whose last strips are empty in their table, or lie beyond the end of the file."""
    options = {"compression": compression} if compression else {}
    data = bytearray(encode(picture(), "TIFF", tiffinfo={278: rows_per_strip}, **options))
    order = "<" if data[:2] == b"II" else ">"
    at = struct.unpack(order + "I", data[4:8])[0]
    entries = struct.unpack(order + "H", data[at : at + 2])[0]
    tags = {}
    for entry in range(entries):
        start = at + 2 + 12 * entry
        tag, kind, count = struct.unpack(order + "HHI", data[start : start + 8])
        tags[tag] = (kind, count, start)
    kind, count, start = tags[279 if zero_size else 273]
    size = {3: 2, 4: 4}[kind]
    where = start + 8 if size * count <= 4 else struct.unpack(order + "I", data[start + 8 : start + 12])[0]
    for strip in range(count // 2, count):
        beyond = 0 if zero_size else len(data) + 1000
        data[where + size * strip : where + size * (strip + 1)] = struct.pack(
            order + ("H" if size == 2 else "I"), beyond
        )
    return bytes(data)


def webp_zero_tail(**options) -> bytes:
    """A WebP of its full length whose second half is zeros."""
    data = encode(picture(), "WEBP", **options)
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)


def webp_cut(**options) -> bytes:
    """Half a WebP whose lengths were put right."""
    data = encode(picture(), "WEBP", **options)
    body = data[20 : len(data) // 2 // 2 * 2]
    return b"RIFF" + struct.pack("<I", 12 + len(body)) + data[8:16] + struct.pack("<I", len(body)) + body


def gif_of_part() -> bytes:
    """A frame of the upper half on a screen of the whole."""
    data = bytearray(encode(picture().crop((0, 0, WIDTH, HEIGHT // 2)).convert("L"), "GIF"))
    data[8:10] = struct.pack("<H", HEIGHT)
    return bytes(data)


def tiff_of_short_jpeg() -> bytes:
    """One strip of 96 rows that holds a whole JPEG of 48."""
    grey = picture().convert("L")
    strip = encode(grey.crop((0, 0, WIDTH, HEIGHT // 2)), "JPEG")
    entries = ((256, WIDTH), (257, HEIGHT), (258, 8), (259, 7), (262, 1), (273, 8), (277, 1), (278, HEIGHT))
    entries += ((279, len(strip)),)
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + directory + bytes(4)


HALF: dict[str, bytes] = {
    "part.gif": gif_of_part(),
    "short-jpeg.tif": tiff_of_short_jpeg(),
    "cut.jpg": cut_jpeg(jpeg()),
    "cut-in-the-last-row.jpg": cut_jpeg(jpeg(), 0.97),
    "cut-grey.jpg": cut_jpeg(encode(picture().convert("L"), "JPEG")),
    "cut-progressive.jpg": cut_jpeg(jpeg(progressive=True)),
    "first-scans.jpg": first_scans(3),
    "hole.jpg": holed(jpeg()),
    "small-hole.jpg": holed(jpeg(), 0.6, 0.62),
    "taller.jpg": taller_jpeg(jpeg()),
    "piece-missing.jpg": without_piece(jpeg()),
    "restart-intervals-missing.jpg": without_restart_intervals(),
    "rows-missing.png": png_rows(HEIGHT // 2),
    "last-row-missing.png": png_rows(HEIGHT - 1),
    "taller.png": png_rows(HEIGHT, header_height=2 * HEIGHT),
    "zero-tail.webp": webp_zero_tail(quality=90),
    "zero-tail-lossless.webp": webp_zero_tail(lossless=True),
    "cut.webp": webp_cut(quality=90),
    "cut-lossless.webp": webp_cut(lossless=True),
    "skips.bmp": bmp_of_skips(early_end=False),
    "early-end.bmp": bmp_of_skips(early_end=True),
    "cut.bmp": encode(picture(), "BMP")[:20000],
    "cut.gif": gif_cut(),
    **{
        f"{name}-{kind or 'raw'}.tif": tiff_cut(kind, zero_size=zero)
        for name, zero in (("beyond", False), ("empty", True))
        for kind in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    },
}
