"""Zips that must be refused as a whole, each malicious or damaged in its own way."""

from __future__ import annotations

import io
import stat
import struct
import warnings
import zipfile

from tests.support import tiny_datasets

GOOD = {"in/ISIC_0000000.jpg": tiny_datasets.jpeg(0), "in/readme.txt": b"text"}


def archive_with(**extra: bytes) -> bytes:
    return tiny_datasets.zipped(GOOD | extra)


def with_member(name: str, *, attributes: int = 0, content: bytes = b"x") -> bytes:
    file = io.BytesIO(tiny_datasets.zipped(GOOD))
    member = zipfile.ZipInfo(name)
    member.external_attr = attributes << 16
    with zipfile.ZipFile(file, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr(member, content)
    return file.getvalue()


def with_bad_crc() -> bytes:
    data = bytearray(tiny_datasets.zipped(GOOD))
    position = data.index(b"PK\x01\x02") + 16  # the checksum in the table of contents
    data[position] ^= 1
    return bytes(data)


def bomb() -> bytes:
    """300 MB of zeros in 0.3 MB."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("in/zeros.jpg", "w") as member,
    ):
        for _ in range(300):
            member.write(b"\0" * (1 << 20))
    return file.getvalue()


def lying_bomb() -> bytes:
    """Claims a size of 4 GB for a small member."""
    data = bytearray(tiny_datasets.zipped({"in/ISIC_0000000.jpg": b"x"}))
    position = data.index(b"PK\x01\x02") + 24
    data[position : position + 4] = struct.pack("<I", 0xFFFFFFF0)
    return bytes(data)


MALICIOUS = {
    "parent": with_member("../evil.jpg"),
    "inner parent": with_member("in/../../evil.jpg"),
    "absolute": with_member("/tmp/evil.jpg"),
    "drive": with_member("C:/evil.jpg"),
    "backslash": with_member("in\\..\\..\\evil.jpg"),
    "link": with_member("in/link.jpg", attributes=stat.S_IFLNK | 0o777, content=b"/etc/passwd"),
    "pipe": with_member("in/pipe.jpg", attributes=stat.S_IFIFO | 0o600),
    "twice": with_member("in/ISIC_0000000.jpg"),
    "bad crc": with_bad_crc(),
    "bomb": bomb(),
    "lying bomb": lying_bomb(),
    "no zip": b"PK\x03\x04 something",
    "empty": b"",
    "cut off": tiny_datasets.zipped(GOOD)[:-30],
}
