"""Structured mutations of image files: their segments, chunks, tags and elements are changed,
not only their bytes.

Every function takes a source of random choices and returns the bytes of one file. Checksums are made right
again, so that the damage reaches the decoder behind them.
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image

Mutation = Callable[[random.Random], bytes]
ODD_16 = (0, 1, 2, 7, 8, 255, 256, 0x7FFF, 0x8000, 0xFFFF)
ODD_32 = (0, 1, 8, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@cache
def picture(kind: str, mode: str = "RGB", **options: object) -> bytes:
    """A generated picture, 50 x 40 pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((50, 40)).convert(mode).save(file, kind, **options)
    return file.getvalue()


def scrambled(source: random.Random, content: bytes, times: int = 6) -> bytes:
    """Bytes overwritten, a piece cut out, repeated or put in, or the end cut off."""
    changed = bytearray(content)
    for _ in range(source.randint(1, times)):
        place = source.randrange(max(len(changed), 1))
        piece = source.randbytes(source.randint(1, 8))
        what = source.choice(("write", "flip", "cut", "insert", "repeat", "fill", "end"))
        if what == "write":
            changed[place : place + len(piece)] = piece
        elif what == "flip" and changed:
            changed[place] ^= 1 << source.randrange(8)
        elif what == "cut":
            del changed[place : place + source.randint(1, 40)]
        elif what == "insert":
            changed[place:place] = piece
        elif what == "repeat":
            changed[place:place] = changed[place : place + source.randint(1, 64)] * source.randint(1, 20)
        elif what == "fill":
            changed[place : place + source.randint(1, 200)] = bytes([source.choice((0, 0xFF, 0x80))]) * 50
        elif what == "end":
            del changed[place:]
    return bytes(changed)


def jpeg_segments(content: bytes) -> list[bytes]:
    """Marker segments of a JPEG; the entropy-coded data belongs to the segment before it."""
    starts = [0]
    place = 2
    while place + 4 <= len(content):
        starts.append(place)
        place += 2 + struct.unpack(">H", content[place + 2 : place + 4])[0]
        while place + 1 < len(content) and not (
            content[place] == 0xFF and content[place + 1] not in (0, *range(0xD0, 0xD8))
        ):
            place += 1
    return [content[a:b] for a, b in zip(starts, [*starts[1:], len(content)], strict=True)]


def jpeg(source: random.Random) -> bytes:
    original = picture(
        "JPEG", source.choice(("RGB", "L", "CMYK")), progressive=source.random() < 0.5, quality=85
    )
    segments = jpeg_segments(original)
    for _ in range(source.randint(1, 3)):
        index = source.randrange(len(segments))
        what = source.choice(
            ("drop", "twice", "swap", "length", "frame", "scans", "fill", "big", "scramble", "cut", "app")
        )
        segment = segments[index]
        if what == "drop" and len(segments) > 1:
            del segments[index]
        elif what == "twice":
            segments.insert(index, segment)
        elif what == "swap":
            other = source.randrange(len(segments))
            segments[index], segments[other] = segments[other], segment
        elif what == "length" and len(segment) >= 4:
            segments[index] = segment[:2] + struct.pack(">H", source.choice(ODD_16)) + segment[4:]
        elif what == "frame":
            for number, other in enumerate(segments):
                if other[:2] in (b"\xff\xc0", b"\xff\xc1", b"\xff\xc2") and len(other) > 9:
                    size = struct.pack(">HH", source.choice((*ODD_16, 80)), source.choice((*ODD_16, 50)))
                    segments[number] = (
                        other[:4] + source.choice((b"\x08", b"\x0c", other[4:5])) + size + other[9:]
                    )
        elif what == "scans":
            scans = [other for other in segments if other[:2] == b"\xff\xda"]
            if scans:
                segments[-1:-1] = [source.choice(scans)] * source.choice((2, 30, 300))
        elif what == "fill":
            segments.insert(index, b"\xff" * source.choice((1, 1000, 1_000_000)))
        elif what == "big":
            body = bytes(source.choice((10, 65_000)))
            segments.insert(1, (b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body) * 20)
        elif what == "scramble":
            segments[index] = scrambled(source, segment)
        elif what == "cut":
            segments[index] = segment[: source.randrange(len(segment) + 1)]
            if source.random() < 0.5:
                segments[index + 1 :] = [b"\xff\xd9"]
        elif what == "app":
            body = source.choice(
                (b"Exif\0\0", b"ICC_PROFILE\0\x01\x01", b"Adobe\0d\0\0\0\0")
            ) + source.randbytes(30)
            segments.insert(
                1,
                source.choice((b"\xff\xe1", b"\xff\xe2", b"\xff\xee"))
                + struct.pack(">H", len(body) + 2)
                + body,
            )
    return b"".join(segments)


def png_chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """Type and content of every chunk."""
    chunks, place = [], 8
    while place + 12 <= len(content):
        size = struct.unpack(">I", content[place : place + 4])[0]
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + size]))
        place += 12 + size
    return chunks


def png_of(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG of these chunks, with right lengths and checksums."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def png(source: random.Random) -> bytes:
    chunks = png_chunks(picture("PNG", source.choice(("RGB", "L", "P", "RGBA", "I;16", "1"))))
    for _ in range(source.randint(1, 3)):
        index = source.randrange(len(chunks))
        name, body = chunks[index]
        what = source.choice(("drop", "twice", "header", "rows", "bomb", "extra", "scramble", "name", "swap"))
        if what == "drop" and len(chunks) > 1:
            del chunks[index]
        elif what == "twice":
            chunks.insert(index, chunks[index])
        elif what == "header":
            size = struct.pack(">II", source.choice((*ODD_32, 50)), source.choice((*ODD_32, 40, 80)))
            rest = bytes(
                (
                    source.choice((1, 2, 4, 8, 16, 3)),
                    source.choice((0, 2, 3, 4, 6, 1)),
                    0,
                    0,
                    source.choice((0, 1, 9)),
                )
            )
            chunks = [(n, size + rest if n == b"IHDR" else b) for n, b in chunks]
        elif what == "rows":
            pixels = b"".join(b for n, b in chunks if n == b"IDAT")
            try:
                raw = zlib.decompress(pixels)
            except zlib.error:
                continue
            raw = raw[: source.randrange(len(raw) + 1)] if source.random() < 0.7 else raw * 3
            chunks = [(n, zlib.compress(raw) if n == b"IDAT" else b) for n, b in chunks]
        elif what == "bomb":
            packed = zlib.compress(bytes(source.choice((1_000, 30_000_000))))
            extra = {b"iCCP": b"x\0\0" + packed, b"zTXt": b"x\0\0" + packed, b"IDAT": packed}
            kind = source.choice(list(extra))
            chunks.insert(source.randint(1, len(chunks)) if len(chunks) > 1 else 0, (kind, extra[kind]))
        elif what == "extra":
            kind = source.choice(
                (b"tRNS", b"PLTE", b"gAMA", b"cHRM", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"iTXt")
            )
            chunks.insert(source.randrange(len(chunks) + 1), (kind, source.randbytes(source.randint(0, 40))))
        elif what == "scramble":
            chunks[index] = name, scrambled(source, body)
        elif what == "name":
            chunks[index] = source.choice((b"IDAT", b"IEND", b"\0\0\0\0", b"sRGB")), body
        elif what == "swap":
            other = source.randrange(len(chunks))
            chunks[index], chunks[other] = chunks[other], chunks[index]
    return png_of(chunks)


def tiff(source: random.Random) -> bytes:
    compression = source.choice((None, "tiff_lzw", "packbits", "tiff_adobe_deflate", "jpeg"))
    mode = "RGB" if compression == "jpeg" else source.choice(("RGB", "L", "I;16", "F", "1", "CMYK"))
    content = bytearray(picture("TIFF", mode, compression=compression))
    place = struct.unpack("<I", content[4:8])[0]
    count = struct.unpack("<H", content[place : place + 2])[0]
    for _ in range(source.randint(1, 3)):
        entry = place + 2 + 12 * source.randrange(count)
        what = source.choice(("tag", "type", "count", "value", "value", "value", "loop", "scramble", "end"))
        if what == "tag":
            content[entry : entry + 2] = struct.pack(
                "<H", source.choice((256, 257, 258, 259, 262, 273, 277, 278, 322, 323, 324, 330, 339, 34675))
            )
        elif what == "type":
            content[entry + 2 : entry + 4] = struct.pack("<H", source.choice((*range(14), 16, 99)))
        elif what == "count":
            content[entry + 4 : entry + 8] = struct.pack("<I", source.choice(ODD_32))
        elif what == "value":
            content[entry + 8 : entry + 12] = struct.pack("<I", source.choice((*ODD_32, *range(16))))
        elif what == "loop":
            end = place + 2 + 12 * count
            content[end : end + 4] = struct.pack("<I", source.choice((place, 4, len(content), 0xFFFFFFFF)))
        elif what == "scramble":
            return scrambled(source, bytes(content))
        else:
            return bytes(content[: source.randrange(len(content))])
    return bytes(content)


def other_picture(source: random.Random) -> bytes:
    kind, mode = source.choice(
        (("GIF", "P"), ("BMP", "RGB"), ("WEBP", "RGB"), ("WEBP", "RGBA"), ("BMP", "P"), ("PPM", "RGB"))
    )
    return scrambled(source, picture(kind, mode))


@cache
def dicom_file(photometric: str = "RGB") -> bytes:
    """A generated DICOM image, 50 x 40 pixels."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("x", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.Rows, dataset.Columns = 40, 50
    grey = photometric.startswith("MONO")
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1 if grey else 3, photometric
    if not grey:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    channels = 1 if grey else 3
    dataset.PixelData = np.random.default_rng(0).integers(0, 256, 2000 * channels, dtype=np.uint8).tobytes()
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


_VALUES: dict[str, tuple[object, ...]] = {
    "Rows": (0, 1, 39, 41, 80, 65535),
    "Columns": (0, 1, 49, 100, 65535),
    "SamplesPerPixel": (0, 1, 2, 3, 4, 255),
    "BitsAllocated": (0, 1, 8, 12, 16, 32, 64),
    "BitsStored": (0, 1, 7, 8, 12, 16, 32, 65535),
    "HighBit": (0, 7, 11, 15, 65535),
    "PixelRepresentation": (0, 1, 2),
    "PlanarConfiguration": (0, 1, 2),
    "PhotometricInterpretation": (
        *(
            "RGB",
            "MONOCHROME1",
            "MONOCHROME2",
            "PALETTE COLOR",
            "YBR_FULL",
            "YBR_FULL_422",
            "HSV",
            "CMYK",
            "ARGB",
        ),
        *("YBR_ICT", "NONSENSE"),
    ),
    "NumberOfFrames": ("0", "1", "2", "3", "1000000", "-1"),
    "WindowCenter": ("0", "40\\80", "1e308"),
    "WindowWidth": ("0", "1", "-5"),
    "RescaleSlope": ("0", "-1", "1e308"),
    "RescaleIntercept": ("0", "-1024"),
}
_SYNTAXES = (
    *("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"),
    *("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"),
    *("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.5", "1.2.3.4"),
)


def dicom(source: random.Random) -> bytes:
    import pydicom
    from pydicom.encaps import encapsulate

    original = dicom_file(source.choice(("RGB", "MONOCHROME2")))
    if source.random() < 0.3:
        return original[:132] + scrambled(source, original[132:])
    dataset = pydicom.dcmread(io.BytesIO(original))
    for _ in range(source.randint(1, 4)):
        name = source.choice(list(_VALUES))
        if source.random() < 0.15 and name in dataset:
            delattr(dataset, name)
        else:
            setattr(dataset, name, source.choice(_VALUES[name]))
    if source.random() < 0.2:
        dataset.PixelData = dataset.PixelData[: source.randrange(len(dataset.PixelData) + 1)]
    elif source.random() < 0.3:
        dataset.PixelData = encapsulate(
            [source.choice((jpeg(source), picture("JPEG"), source.randbytes(40)))]
        )
        dataset["PixelData"].VR = "OB"
    file = io.BytesIO()
    try:
        dataset.save_as(file, enforce_file_format=True)
    except Exception:  # what cannot be written is not to be read either
        return scrambled(source, original)
    if source.random() < 0.3:
        old, new = b"1.2.840.10008.1.2.1\0", source.choice(_SYNTAXES).encode()
        size = len(new) + len(new) % 2
        content = file.getvalue()
        place = content.find(old)
        if place > 0:
            packed = struct.pack("<H", size) + new.ljust(size, b"\0")
            return content[: place - 2] + packed + content[place + len(old) :]
    return file.getvalue()


PICTURES: dict[str, Mutation] = {"jpg": jpeg, "png": png, "tif": tiff, "gif": other_picture, "dcm": dicom}
