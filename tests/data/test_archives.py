"""Malicious and damaged zips: refused as a whole."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.reading.archives import image_members, open_archive
from skinlesion_cli.errors import DataError
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages.download.stage import DownloadSettings, run
from tests.support import tiny_datasets
from tests.support.bad_archives import GOOD, MALICIOUS, archive_with
from tests.support.limits import HANG_S


@pytest.mark.parametrize("kind", MALICIOUS)
def test_a_malicious_or_damaged_zip_is_refused(kind, tmp_path):
    (tmp_path / "a.zip").write_bytes(MALICIOUS[kind])
    with pytest.raises(DataError):
        open_archive(tmp_path / "a.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("kind", MALICIOUS)
def test_nothing_of_it_reaches_the_dataset(kind, tmp_path):
    source = tiny_datasets.write_official(tmp_path / "s")
    images = source / "ISIC2018_Task3_Training_Input"
    for path in images.iterdir():
        path.unlink()
    images.rmdir()
    (source / "ISIC2018_Task3_Training_Input.zip").write_bytes(MALICIOUS[kind])
    with pytest.raises(DataError):
        run(DownloadSettings(workspace=tmp_path / "w", source=source), SilentReporter())
    assert not Workspace(tmp_path / "w").images.exists()
    assert not Workspace(tmp_path / "w").manifest.exists()
    assert not (tmp_path / "evil.jpg").exists()
    assert not Path("/tmp/evil.jpg").exists()


def test_a_good_zip_opens_and_names_its_images(tmp_path):
    with_folders = GOOD | {"__MACOSX/in/._ISIC_0000000.jpg": b"", "in/": b"", "in/b/ISIC_0000001.JPG": b"x"}
    (tmp_path / "a.zip").write_bytes(tiny_datasets.zipped(with_folders))
    with open_archive(tmp_path / "a.zip") as archive:
        assert image_members(archive) == {
            "ISIC_0000000": "in/ISIC_0000000.jpg",
            "ISIC_0000001": "in/b/ISIC_0000001.JPG",
        }


def test_a_well_compressed_table_is_no_bomb(tmp_path):
    truth = tiny_datasets.ground_truth({f"ISIC_{number:07d}": "NV" for number in range(10_015)}).encode()
    (tmp_path / "a.zip").write_bytes(tiny_datasets.zipped({"a.csv": truth}))
    assert len(truth) > 9 * (tmp_path / "a.zip").stat().st_size
    open_archive(tmp_path / "a.zip").close()


def test_one_image_in_two_folders_is_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(archive_with(**{"other/ISIC_0000000.jpg": tiny_datasets.jpeg(1)}))
    with pytest.raises(DataError, match="ISIC_0000000"), open_archive(tmp_path / "a.zip") as archive:
        image_members(archive)


# Two readers of one archive that was open before they were forked; a fork in the process of the tests could
# leave a lock of another thread held.
_FORKED_READERS = """
import os, sys
from multiprocessing import get_context
from pathlib import Path
from skinlesion_cli.data.reading.archive_images import member_bytes

path = Path(sys.argv[1])
names = [f"{index}.bin" for index in range(30)]
member_bytes(path, names[0])

def read(_reader):
    return [name for name in 8 * names if not member_bytes(path, name).startswith(name.encode())]

with get_context("fork").Pool(2) as pool:
    print(sum(map(len, pool.map(read, range(2)))), "differ")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked on POSIX only")
def test_forked_processes_read_an_archive_that_was_open_before(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for index in range(30):
            name = f"{index}.bin"
            archive.writestr(name, name.encode() + bytes(100_000))
    done = subprocess.run(
        [sys.executable, "-c", _FORKED_READERS, str(tmp_path / "a.zip")],
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.stdout == "0 differ\n", done.stderr[-500:]
