"""`skinlesion download` from a server with every fault: a whole dataset,
or a clear error and nothing half.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.download.http import Patience
from skinlesion_cli.stages.download import stage
from tests.support import tiny_datasets
from tests.support.command_line import assert_refused, files_below, room_for, run
from tests.support.http_server import OfficialServer

pytestmark = pytest.mark.command_line

INPUT = "ISIC2018_Task3_Training_Input.zip"
PATIENCE = Patience(tries=3, first_wait_s=0.0, timeout_s=20.0, sleep=lambda seconds: None)


@pytest.fixture(scope="module")
def zips() -> dict[str, bytes]:
    return tiny_datasets.official_zips()


@pytest.fixture
def server(zips: dict[str, bytes]) -> Iterator[OfficialServer]:
    server = OfficialServer()
    server.files.update(zips)
    server.cut_after_bytes = 98_304
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def small_official_files(zips: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command knows of the server's small files instead of the official ones, and waits for nothing."""
    known = functools.partial(stage.run, files=tiny_datasets.catalogue(zips), patience=PATIENCE)
    monkeypatch.setattr(stage, "run", known)


def download(server: OfficialServer, folder: Path, *more: object):
    return run("download", "--base-url", server.url, "-w", folder, *more)


def assert_whole(folder: Path, zips: dict[str, bytes]) -> None:
    """All 42 images, every archive as the server has it, and nothing unfinished."""
    workspace = Workspace(folder)
    assert len(list(workspace.images.glob("*.jpg"))) == 42
    assert json.loads(workspace.manifest.read_text())["kind"] == "manifest"
    for name, content in zips.items():
        assert (workspace.archives / name).read_bytes() == content
    assert not list(folder.rglob("*.part*"))


def assert_no_dataset(folder: Path) -> None:
    """Neither a manifest nor images, nor the bad archive under its final name."""
    workspace = Workspace(folder)
    assert not workspace.manifest.exists()
    assert not workspace.images.exists()
    assert not (workspace.archives / INPUT).exists()


RECOVERED = {
    "cut twice": (["cut", "cut"], [None, "bytes=98304-", "bytes=196608-"]),
    "whole file for a range": (["cut", "ignore_range"], [None, "bytes=98304-"]),
    "416": (["cut", "416"], [None, "bytes=98304-", None]),
    "503": (["cut", "503"], [None, "bytes=98304-", "bytes=98304-"]),
    "wrong place": (["cut", "wrong_offset"], [None, "bytes=98304-", None]),
    "flipped once": (["flipped"], [None, None]),
}


@pytest.mark.parametrize(("faults", "ranges"), RECOVERED.values(), ids=RECOVERED.keys())
def test_a_line_that_fails_for_a_while_costs_no_byte(
    faults: list[str],
    ranges: list[str | None],
    server: OfficialServer,
    zips: dict[str, bytes],
    tmp_path: Path,
) -> None:
    server.faults[INPUT].extend(faults)
    done = download(server, tmp_path)
    assert done.exit_code == 0, done.output
    assert server.gets(INPUT) == ranges
    assert_whole(tmp_path, zips)


@pytest.mark.parametrize("fault", ["gzip", "no_length", "trickle", "trickle_header"])
def test_a_server_that_misbehaves_once_costs_only_time(
    fault: str,
    server: OfficialServer,
    zips: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hurried = replace(PATIENCE, answer_s=0.5, rate_window_s=0.5)
    monkeypatch.setattr(stage, "run", functools.partial(stage.run, patience=hurried))
    server.faults[INPUT].append(fault)
    done = download(server, tmp_path)
    assert done.exit_code == 0, done.output
    assert_whole(tmp_path, zips)


def test_a_server_that_states_5_terabytes_is_refused(server: OfficialServer, tmp_path: Path) -> None:
    server.faults[INPUT].extend(["five_terabytes"] * 4)
    done = download(server, tmp_path)
    assert_refused(
        done, 1, INPUT, "5,000,000,000,000 bytes on the server", "skinlesion download --from FOLDER"
    )
    assert_no_dataset(tmp_path)
    assert not list(tmp_path.rglob("*.part*"))


def test_a_file_that_changes_between_two_tries_is_not_mixed(
    server: OfficialServer, zips: dict[str, bytes], tmp_path: Path
) -> None:
    server.files[INPUT] = bytes(byte ^ 0xFF for byte in zips[INPUT])

    def change(handler: object, name: str) -> str:
        server.files[name] = zips[name]
        return "good"

    server.faults[INPUT].extend(["cut", change])
    done = download(server, tmp_path)
    assert done.exit_code == 0, done.output
    assert_whole(tmp_path, zips)


def test_a_file_of_the_wrong_content_is_removed_and_the_manual_way_told(
    server: OfficialServer, tmp_path: Path
) -> None:
    server.faults[INPUT].extend(["flipped"] * 4)
    done = download(server, tmp_path)
    assert_refused(done, 1, INPUT, server.url + INPUT, "skinlesion download --from FOLDER")
    assert_no_dataset(tmp_path)
    assert not list(tmp_path.rglob("*.part*"))


def test_a_file_of_another_hash_than_before_is_removed(
    server: OfficialServer, zips: dict[str, bytes], tmp_path: Path
) -> None:
    assert download(server, tmp_path).exit_code == 0
    truth = "ISIC2018_Task3_Test_GroundTruth.zip"
    workspace = Workspace(tmp_path)
    (workspace.archives / truth).unlink()
    (workspace.images / "ISIC_0000003.jpg").unlink()
    manifest = workspace.manifest.read_bytes()
    server.files[truth] = tiny_datasets.zipped(
        {
            "a/ISIC2018_Task3_Test_GroundTruth.csv": tiny_datasets.ground_truth(tiny_datasets.TEST).encode()
            + b"\n"
        }
    )
    done = download(server, tmp_path)
    assert_refused(done, 1, f"{truth} has sha256", "expected", "--ignore-hashes", server.url + truth)
    assert not (workspace.archives / truth).exists()
    assert workspace.manifest.read_bytes() == manifest
    assert download(server, tmp_path, "--ignore-hashes").exit_code == 0


def test_a_file_of_the_wrong_size_is_not_even_begun(
    server: OfficialServer, zips: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [replace(file, size_bytes=5) for file in tiny_datasets.catalogue(zips)]
    monkeypatch.setattr(stage, "run", functools.partial(stage.run, files=files))
    done = download(server, tmp_path)
    assert_refused(done, 1, "on the server, expected 5", "skinlesion download --from FOLDER")
    assert not list(tmp_path.rglob("*.part*"))
    assert_no_dataset(tmp_path)


def test_no_connection_tells_the_addresses_and_the_manual_way(zips: dict[str, bytes], tmp_path: Path) -> None:
    done = run("download", "--base-url", "http://127.0.0.1:9/none/", "-w", tmp_path)
    addresses = [f"http://127.0.0.1:9/none/{name}" for name in zips]
    assert_refused(done, 1, "could not be downloaded", "skinlesion download --from FOLDER", *addresses)
    assert files_below(tmp_path) == []


def test_a_full_disk_is_told_and_the_next_run_goes_on(
    server: OfficialServer, zips: dict[str, bytes], tmp_path: Path
) -> None:
    with room_for(150_000):
        done = download(server, tmp_path)
    assert_refused(done, 1, f"cannot write {INPUT}", "Free some space", "to resume")
    assert_no_dataset(tmp_path)
    server.requests.clear()
    done = download(server, tmp_path)
    assert done.exit_code == 0, done.output
    assert server.gets(INPUT) == ["bytes=150000-"]
    assert_whole(tmp_path, zips)


def test_a_full_disk_while_images_come_in_leaves_no_half_image(
    server: OfficialServer, zips: dict[str, bytes], tmp_path: Path
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name, content in zips.items():
        (source / name).write_bytes(content)
    with room_for(1000):  # an image has more
        done = run("download", "--from", source, "-w", tmp_path / "ws")
    assert_refused(done, 1, "cannot write images to", "run the same command again")
    assert not Workspace(tmp_path / "ws").manifest.exists()
    assert [name for name in files_below(tmp_path / "ws") if not name.endswith(".jpg")] == []
    for image in Workspace(tmp_path / "ws").images.glob("*.jpg"):
        assert image.read_bytes() == tiny_datasets.jpeg(int(image.stem[5:]))
    assert run("download", "--from", source, "-w", tmp_path / "ws").exit_code == 0


def test_a_link_at_the_place_of_an_unfinished_file_is_not_followed(
    server: OfficialServer, zips: dict[str, bytes], tmp_path: Path
) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("keep")
    archives = Workspace(tmp_path / "ws").archives
    archives.mkdir(parents=True)
    (archives / f"{INPUT}.part").symlink_to(precious)
    done = download(server, tmp_path / "ws")
    assert done.exit_code == 0, done.output
    assert precious.read_text() == "keep"
    assert_whole(tmp_path / "ws", zips)
