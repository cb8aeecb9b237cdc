"""Malicious and damaged zips: refused as a whole."""

from __future__ import annotations

import io
import stat
import struct
import warnings
import zipfile
from pathlib import Path

import pytest

from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.archives import image_members, open_archive
from skinlesion_cli.errors import DataError
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages.download import DownloadConfig, run
from tests.data import tiny

GOOD = {"in/ISIC_0000000.jpg": tiny.jpeg(0), "in/readme.txt": b"text"}


def archive_with(**extra: bytes) -> bytes:
    return tiny.zipped(GOOD | extra)


def with_member(name: str, *, attributes: int = 0, content: bytes = b"x") -> bytes:
    file = io.BytesIO(tiny.zipped(GOOD))
    member = zipfile.ZipInfo(name)
    member.external_attr = attributes << 16
    with zipfile.ZipFile(file, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr(member, content)
    return file.getvalue()


def with_bad_crc() -> bytes:
    data = bytearray(tiny.zipped(GOOD))
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
    data = bytearray(tiny.zipped({"in/ISIC_0000000.jpg": b"x"}))
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
    "cut off": tiny.zipped(GOOD)[:-30],
}


@pytest.mark.parametrize("kind", MALICIOUS)
def test_a_malicious_or_damaged_zip_is_refused(kind, tmp_path):
    (tmp_path / "a.zip").write_bytes(MALICIOUS[kind])
    with pytest.raises(DataError):
        open_archive(tmp_path / "a.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("kind", MALICIOUS)
def test_nothing_of_it_reaches_the_dataset(kind, tmp_path):
    source = tiny.write_official(tmp_path / "s")
    images = source / "ISIC2018_Task3_Training_Input"
    for path in images.iterdir():
        path.unlink()
    images.rmdir()
    (source / "ISIC2018_Task3_Training_Input.zip").write_bytes(MALICIOUS[kind])
    with pytest.raises(DataError):
        run(DownloadConfig(workspace=tmp_path / "w", source=source), SilentReporter())
    assert not Workspace(tmp_path / "w").images.exists()
    assert not Workspace(tmp_path / "w").manifest.exists()
    assert not (tmp_path / "evil.jpg").exists()
    assert not Path("/tmp/evil.jpg").exists()


def test_a_good_zip_opens_and_names_its_images(tmp_path):
    with_folders = GOOD | {"__MACOSX/in/._ISIC_0000000.jpg": b"", "in/": b"", "in/b/ISIC_0000001.JPG": b"x"}
    (tmp_path / "a.zip").write_bytes(tiny.zipped(with_folders))
    with open_archive(tmp_path / "a.zip") as archive:
        assert image_members(archive) == {
            "ISIC_0000000": "in/ISIC_0000000.jpg",
            "ISIC_0000001": "in/b/ISIC_0000001.JPG",
        }


def test_a_well_compressed_table_is_no_bomb(tmp_path):
    truth = tiny.ground_truth({f"ISIC_{number:07d}": "NV" for number in range(10_015)}).encode()
    (tmp_path / "a.zip").write_bytes(tiny.zipped({"a.csv": truth}))
    assert len(truth) > 9 * (tmp_path / "a.zip").stat().st_size
    open_archive(tmp_path / "a.zip").close()


def test_one_image_in_two_folders_is_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(archive_with(**{"other/ISIC_0000000.jpg": tiny.jpeg(1)}))
    with pytest.raises(DataError, match="ISIC_0000000"), open_archive(tmp_path / "a.zip") as archive:
        image_members(archive)
