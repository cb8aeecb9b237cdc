"""The decoded cache: written once, whole or not at all, shared by processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from skinlesion_cli.artifacts.files import sha256_bytes
from skinlesion_cli.data.preprocess import resize_square
from skinlesion_cli.data.reading.images import read_image
from skinlesion_cli.data.training import cache as cache_module
from skinlesion_cli.data.training.cache import ImageFile, open_cache
from skinlesion_cli.errors import ArtifactError, DataError, ExitCode, SkinLesionError
from skinlesion_cli.progress import SilentReporter
from tests.support import tiny_datasets

ROWS = [(f"id{number}", f"{number}.jpg") for number in range(12)]
# The hashes that the manifest would record.
FILES = [
    ImageFile(identity, file, sha256_bytes(tiny_datasets.jpeg(number)))
    for number, (identity, file) in enumerate(ROWS)
]


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, (_, file) in enumerate(ROWS):
        (folder / file).write_bytes(tiny_datasets.jpeg(number))
    return folder


def open_it(tmp_path: Path, images: Path, files=FILES, size_px: int = 32):
    return open_cache(tmp_path / "cache", files, images, size_px, SilentReporter())


def test_it_holds_what_reading_and_resizing_give(tmp_path, images):
    cache = open_it(tmp_path, images)
    assert (cache.images.shape, cache.images.dtype) == ((12, 32, 32, 3), np.uint8)
    for identity, file in ROWS:
        expected = resize_square(read_image(images / file, target_px=32), 32)
        assert (cache[identity] == expected).all()


def test_each_filter_has_a_cache_of_its_own(tmp_path, images):
    plain = open_it(tmp_path, images)
    cubic = open_cache(
        tmp_path / "cache", FILES, images, 32, SilentReporter(), interpolation="antialias-bicubic"
    )
    assert plain.path != cubic.path
    first = read_image(images / ROWS[0][1], target_px=32)
    assert (cubic["id0"] == resize_square(first, 32, "antialias-bicubic")).all()
    assert (cubic["id0"] != plain["id0"]).any()
    again = open_it(tmp_path, images)
    assert (again.path, again["id0"].tolist()) == (plain.path, plain["id0"].tolist())


def test_its_size_is_said_before_it_is_written(tmp_path, images):
    labels = []

    class Reporter(SilentReporter):
        def task(self, label, **options):
            labels.append(label)
            return super().task(label, **options)

    open_cache(tmp_path / "cache", FILES, images, 32, Reporter(), threads=1)
    assert labels == ["decoding images to 32 px, 0.0 GB on disk"]
    # The official images at 450 px: 11,720 x 450 x 450 x 3 bytes.
    assert cache_module._gigabytes(11_720, 450) == "7.1 GB"


def test_it_is_read_only(tmp_path, images):
    with pytest.raises(ValueError, match="read-only"):
        open_it(tmp_path, images).images[0] = 0


def test_the_second_time_nothing_is_decoded(tmp_path, images, monkeypatch):
    first = open_it(tmp_path, images)
    monkeypatch.setattr(cache_module, "read_image", lambda *a, **k: pytest.fail("decoded again"))
    again = open_it(tmp_path, images, files=list(reversed(FILES)))
    assert again.path == first.path
    assert again.index == first.index


def test_another_size_dataset_or_selection_is_another_cache(tmp_path, images):
    paths = {
        open_it(tmp_path, images).path,
        open_it(tmp_path, images, size_px=16).path,
        open_it(tmp_path, images, files=FILES[:5]).path,
    }
    (images / "0.jpg").write_bytes(tiny_datasets.jpeg(77))
    other = [replace(FILES[0], sha256=sha256_bytes(tiny_datasets.jpeg(77))), *FILES[1:]]
    assert len(paths | {open_it(tmp_path, images, files=other).path}) == 4


def test_images_that_cannot_be_read_are_named_and_nothing_is_left(tmp_path, images):
    files = list(FILES)
    for number in (3, 7):
        (images / f"{number}.jpg").write_bytes(b"no image")
        files[number] = replace(files[number], sha256=sha256_bytes(b"no image"))
    with pytest.raises(DataError) as caught:
        open_it(tmp_path, images, files)
    assert "3.jpg" in caught.value.message
    assert "7.jpg" in caught.value.message
    assert not list((tmp_path / "cache").glob("*.npy*"))
    assert not list((tmp_path / "cache").glob(".*.tmp"))


def test_missing_and_changed_images_are_refused_and_the_first_five_are_named(tmp_path, images):
    (images / "0.jpg").unlink()
    for number in range(1, 7):
        (images / f"{number}.jpg").write_bytes(tiny_datasets.jpeg(50))
    with pytest.raises(ArtifactError) as caught:
        open_it(tmp_path, images)
    assert caught.value.exit_code is ExitCode.ARTIFACT
    # Sorted by id, as the cache is: id0, id1, id10, id11, id2, ...
    for number in range(5):
        assert f"{number}.jpg (" in caught.value.message
    assert "5.jpg" not in caught.value.message
    assert "(7 in all)" in caught.value.message
    assert not list((tmp_path / "cache").glob("*.npy*"))


def test_a_cut_off_cache_is_made_again(tmp_path, images):
    path = open_it(tmp_path, images).path
    expected = path.read_bytes()
    path.write_bytes(expected[: len(expected) // 2])
    assert open_it(tmp_path, images).path.read_bytes() == expected


def test_a_full_disk_is_an_error_not_a_crash(tmp_path, images, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module.os, "posix_fallocate", full)
    with pytest.raises(SkinLesionError, match="No space left"):
        open_it(tmp_path, images)
    assert not list((tmp_path / "cache").glob("*.npy"))


def _worker(tmp_path: Path, images: Path, log: Path) -> None:
    decode = cache_module.read_image

    def counted(*arguments, **options):
        with log.open("a", encoding="utf-8") as file:
            file.write("x")
        time.sleep(0.02)
        return decode(*arguments, **options)

    cache_module.read_image = counted
    open_it(tmp_path, images)


def test_two_processes_decode_once_together(tmp_path, images):
    context = multiprocessing.get_context("spawn")
    log = tmp_path / "log"
    processes = [context.Process(target=_worker, args=(tmp_path, images, log)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert log.read_text() == "x" * 12


def test_kill_9_while_it_is_written_leaves_no_cache_and_the_next_run_makes_it(tmp_path, images):
    process = multiprocessing.get_context("spawn").Process(
        target=_worker, args=(tmp_path, images, tmp_path / "log")
    )
    process.start()
    limit = time.monotonic() + 60
    while not (tmp_path / "log").is_file() and time.monotonic() < limit:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    assert not list((tmp_path / "cache").glob("*.npy"))
    assert open_it(tmp_path, images).images.shape == (12, 32, 32, 3)
    assert not list((tmp_path / "cache").glob(".*.tmp"))
