"""`skinlesion download` as a whole: from a server, from copies on disk, again, and after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.near_duplicates import Duplicates
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data import ingest as importing
from skinlesion_cli.data.download import isic2018_files as official
from skinlesion_cli.data.download.http import Patience
from skinlesion_cli.errors import ArtifactError, DataError, SkinLesionError, UsageError
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages.download.stage import DownloadSettings, run
from tests.support import tiny_datasets
from tests.support.class_lists import ISIC2018
from tests.support.http_server import OfficialServer
from tests.support.limits import HANG_S

PATIENCE = Patience(tries=2, first_wait_s=0.0, timeout_s=20.0, sleep=lambda seconds: None)
INPUT = "ISIC2018_Task3_Training_Input.zip"


@pytest.fixture(scope="module")
def zips() -> dict[str, bytes]:
    return tiny_datasets.official_zips()


@pytest.fixture
def server(zips):
    server = OfficialServer()
    server.files.update(zips)
    yield server
    server.shutdown()
    server.server_close()


def download(server: OfficialServer, workspace: Path, zips: dict[str, bytes], **settings):
    config = DownloadSettings(workspace=workspace, base_url=server.url, **settings)
    return run(config, SilentReporter(), files=tiny_datasets.catalogue(zips), patience=PATIENCE)


def load(root: Path):
    workspace = Workspace(root)
    manifest = Manifest.load(workspace.manifest)
    return workspace, manifest, Split.load(workspace.split, manifest)


def test_everything_from_the_server(server, zips, tmp_path):
    result = download(server, tmp_path, zips)
    workspace, manifest, split = load(tmp_path)
    assert result.figures["images"] == 42
    assert result.figures["lesions"] == 14 + 14
    assert manifest.class_counts == dict.fromkeys(ISIC2018.codes, 6)
    # Two lesions a class, one to each side; the official validation and test sets where they belong.
    assert result.figures["split"]["class_counts"] == {
        "train": dict.fromkeys(ISIC2018.codes, 2),
        "val": dict.fromkeys(ISIC2018.codes, 3),
        "test": dict.fromkeys(ISIC2018.codes, 1),
    }
    assert set(split.ids("test")) == set(tiny_datasets.TEST)
    for row in manifest.table.itertuples():
        assert (workspace.images / row.file).read_bytes() == tiny_datasets.jpeg(int(row.id[5:]))
    ledger = json.loads((workspace.archives / "downloads.json").read_text())
    assert set(ledger) == set(zips)
    assert all(len(entry["sha256"]) == 64 for entry in ledger.values())
    text = workspace.attribution.read_text()
    assert "CC BY-NC 4.0" in text
    assert "10.1038/sdata.2018.161" in text
    assert "arXiv:1902.03368" in text
    assert "arXiv:1710.05006" in text


def test_what_is_complete_is_not_fetched_again(server, zips, tmp_path):
    download(server, tmp_path, zips)
    first = load(tmp_path)[1].artifact.sha256
    server.requests.clear()
    download(server, tmp_path, zips)
    assert server.requests == []
    shutil.rmtree(Workspace(tmp_path).archives)  # the images are enough
    result = download(server, tmp_path, zips, split="grouped", seed=3)
    assert server.requests == []
    assert result.figures["split"]["strategy"] == "grouped"
    assert load(tmp_path)[1].artifact.sha256 == first


def test_metadata_put_beside_the_archives_is_read_the_next_time(server, zips, tmp_path):
    assert any("doi:10.7910/DVN/DBW86T" in note for note in download(server, tmp_path, zips).warnings)
    (Workspace(tmp_path).archives / "HAM10000_metadata.csv").write_text(tiny_datasets.METADATA)
    download(server, tmp_path, zips)
    assert load(tmp_path)[1].rows(["ISIC_0000001"])["age_years"].tolist() == ["45"]


def test_a_damaged_image_comes_back_from_the_archive(server, zips, tmp_path):
    download(server, tmp_path, zips)
    damaged = Workspace(tmp_path).images / "ISIC_0000003.jpg"
    damaged.write_bytes(b"gone")
    server.requests.clear()
    download(server, tmp_path, zips)
    assert damaged.read_bytes() == tiny_datasets.jpeg(3)
    assert server.requests == []


def test_parts(server, zips, tmp_path):
    result = download(server, tmp_path, zips, parts=("training",))
    assert result.figures["images"] == 28
    assert not any("Test" in name or "Validation" in name for _, name, _ in server.requests)
    server.requests.clear()
    assert download(server, tmp_path, zips).figures["images"] == 42
    assert {name for method, name, _ in server.requests if method == "GET"} == {
        name for name in zips if "Training" not in name
    }


def test_dry_run_asks_and_writes_nothing(server, zips, tmp_path):
    result = download(server, tmp_path / "none", zips, dry_run=True)
    assert result.figures["missing_bytes"] == sum(map(len, zips.values()))
    assert server.gets(INPUT) == []
    assert not (tmp_path / "none").exists()


def test_no_connection_says_how_to_go_on(tmp_path, zips):
    config = DownloadSettings(workspace=tmp_path, base_url="http://127.0.0.1:9/none/")
    with pytest.raises(SkinLesionError) as caught:
        run(config, SilentReporter(), files=tiny_datasets.catalogue(zips), patience=PATIENCE)
    assert caught.value.exit_code == 1
    assert "skinlesion download --from" in caught.value.hint
    assert all(f"http://127.0.0.1:9/none/{name}" in caught.value.hint for name in zips)
    assert not Workspace(tmp_path).manifest.exists()


def test_the_official_addresses_and_sizes():
    assert official.BASE_URLS == (
        "https://isic-archive.s3.amazonaws.com/challenges/2018/",
        "https://isic-challenge-data.s3.amazonaws.com/2018/",
    )
    known = {file.name: file for file in official.OFFICIAL_FILES}
    assert len(known) == 7
    assert known[INPUT].size_bytes == 2_771_732_744
    assert sum(file.images for file in official.OFFICIAL_FILES) == 10_015 + 193 + 1_512
    planned = official.plan([known[INPUT]], Path("nowhere"), official.BASE_URLS, PATIENCE, ask=False)
    assert planned[0].urls[1] == f"https://isic-challenge-data.s3.amazonaws.com/2018/{INPUT}"


def test_too_little_disk_is_told_before_the_start(server, zips, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(official.shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(SkinLesionError, match="GB are needed"):
        download(server, tmp_path, zips)
    assert server.requests == []


def test_an_archive_with_too_few_images_is_refused(server, zips, tmp_path):
    with zipfile.ZipFile(tmp_path / "less.zip", "w") as archive:
        archive.writestr("ISIC2018_Task3_Training_Input/ISIC_0000000.jpg", tiny_datasets.jpeg(0))
    server.files[INPUT] = (tmp_path / "less.zip").read_bytes()
    with pytest.raises(DataError, match="contains 1 images, expected 28"):
        download(server, tmp_path / "w", zips)
    assert not (Workspace(tmp_path / "w").archives / INPUT).exists()


def test_a_damaged_archive_is_refused_and_nothing_is_taken_out(server, zips, tmp_path):
    content = bytearray(zips[INPUT])
    position = (
        content.index(tiny_datasets.jpeg(5)[300:340]) if tiny_datasets.jpeg(5)[300:340] in content else 2000
    )
    content[position] ^= 0xFF
    server.files[INPUT] = bytes(content)
    with pytest.raises(DataError, match="damaged"):
        download(server, tmp_path, zips)
    assert not Workspace(tmp_path).manifest.exists()
    assert not Workspace(tmp_path).images.exists()
    assert not (Workspace(tmp_path).archives / INPUT).exists()


def test_a_file_that_was_replaced_since_it_was_recorded(server, zips, tmp_path):
    download(server, tmp_path, zips)
    truth = "ISIC2018_Task3_Test_GroundTruth.zip"
    (Workspace(tmp_path).archives / truth).unlink()
    (Workspace(tmp_path).images / "ISIC_0000003.jpg").unlink()
    server.files[truth] = tiny_datasets.zipped(
        {
            "a/ISIC2018_Task3_Test_GroundTruth.csv": tiny_datasets.ground_truth(tiny_datasets.TEST).encode()
            + b"\n"
        }
    )
    with pytest.raises(DataError, match="sha256"):
        download(server, tmp_path, zips)
    assert download(server, tmp_path, zips, ignore_hashes=True).figures["images"] == 42


DRIVER = """
import functools, sys
from tests.support import tiny_datasets
from skinlesion_cli.cli.app import main
from skinlesion_cli.data.download.http import Patience
from skinlesion_cli.stages.download import stage
from tests.support.class_lists import ISIC2018
files = tiny_datasets.catalogue({name: b"" for name in tiny_datasets.official_zips()})
stage.run = functools.partial(stage.run, files=files, patience=Patience())
sys.argv = ["skinlesion", "download", "--quiet", "-w", sys.argv[1], "--base-url", sys.argv[2]]
main()
"""


@pytest.mark.command_line
def test_kill_9_in_the_middle_then_only_the_missing_bytes(server, zips, tmp_path):
    command = [sys.executable, "-c", DRIVER, str(tmp_path), server.url]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([".", *sys.path])}
    part = Workspace(tmp_path).archives / f"{INPUT}.part"
    server.chunk_delay_s = 0.03
    process = subprocess.Popen(command, env=environment)
    try:
        limit = time.monotonic() + 60
        while not (part.is_file() and part.stat().st_size > 100_000):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < limit
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    have = part.stat().st_size
    assert 100_000 < have < len(zips[INPUT])
    assert not (Workspace(tmp_path).archives / INPUT).exists()
    assert not Workspace(tmp_path).manifest.exists()
    server.chunk_delay_s = 0.0
    server.requests.clear()
    server.cut_after_bytes = 40_000
    server.faults[INPUT].append("cut")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # nor does the HTTP client write anything
    assert server.gets(INPUT) == [f"bytes={have}-", f"bytes={have + 40_000}-"]
    before = [name for name in zips if list(zips).index(name) < list(zips).index(INPUT)]
    assert all(server.gets(name) == [] for name in before)
    assert (Workspace(tmp_path).archives / INPUT).read_bytes() == zips[INPUT]
    assert len(load(tmp_path)[1].table) == 42


def test_two_at_once_the_second_is_told(server, zips, tmp_path):
    from skinlesion_cli.artifacts.files import exclusive

    with (
        exclusive(Workspace(tmp_path).dataset, "download"),
        pytest.raises(SkinLesionError, match="in use by"),
    ):
        download(server, tmp_path, zips)


def from_folder(workspace: Path, source: Path, **settings):
    return run(DownloadSettings(workspace=workspace, source=source, **settings), SilentReporter())


def test_a_folder_of_official_zips_gives_the_same_dataset(server, zips, tmp_path):
    (tmp_path / "zips").mkdir()
    for name, content in zips.items():
        (tmp_path / "zips" / name).write_bytes(content)
    from_folder(tmp_path / "a", tmp_path / "zips")
    download(server, tmp_path / "b", zips)
    assert load(tmp_path / "a")[1].artifact.sha256 == load(tmp_path / "b")[1].artifact.sha256
    assert load(tmp_path / "a")[2].table.equals(load(tmp_path / "b")[2].table)


def test_the_order_of_files_and_the_locale_do_not_matter(tmp_path):
    forward = tiny_datasets.write_official(tmp_path / "forward")
    backward = tiny_datasets.write_official(tmp_path / "backward")
    for name in ("ISIC2018_Task3_Training_GroundTruth.csv", "ISIC2018_Task3_Training_LesionGroupings.csv"):
        head, *rows = (backward / name).read_text().splitlines()
        (backward / name).write_text("\n".join([head, *reversed(rows)]) + "\n")
    from_folder(tmp_path / "a", forward, split="grouped", seed=9)
    command = [sys.executable, "-m", "skinlesion_cli", "download", "--from", str(backward)]
    command += ["-w", str(tmp_path / "b"), "--split", "grouped", "--seed", "9"]
    environment = os.environ | {"LC_ALL": "tr_TR.UTF-8", "PYTHONHASHSEED": "5", "PYTHONUTF8": "0"}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=HANG_S)
    a, b = load(tmp_path / "a"), load(tmp_path / "b")
    assert a[1].artifact.sha256 == b[1].artifact.sha256
    assert a[2].artifact.sha256 == b[2].artifact.sha256


def test_files_that_are_no_whole_images_are_named_and_no_manifest_is_written(tmp_path):
    source = tiny_datasets.write_official(tmp_path / "s")
    images = source / "ISIC2018_Task3_Training_Input"
    (images / "ISIC_0000001.jpg").write_text("<html>not found</html>")
    (images / "ISIC_0000002.jpg").write_bytes(tiny_datasets.jpeg(2)[:-200])
    (images / "ISIC_0000003.jpg").write_bytes(b"")
    (images / "ISIC_0000004.jpg").unlink()
    os.mkfifo(images / "ISIC_0000004.jpg")
    with pytest.raises(DataError) as caught:
        from_folder(tmp_path / "w", source)
    for number in (1, 2, 3, 4):
        assert f"ISIC_000000{number} (" in caught.value.message
    assert "web page" in caught.value.message
    assert not Workspace(tmp_path / "w").manifest.exists()


def test_a_full_disk_while_images_come_in(tmp_path, monkeypatch):
    source = tiny_datasets.write_official(tmp_path / "s")
    from_folder(tmp_path / "w", source)
    before = load(tmp_path / "w")[1].artifact.sha256
    (source / "ISIC2018_Task3_Training_Input" / "ISIC_0000001.jpg").write_bytes(tiny_datasets.jpeg(55))

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(importing, "_place", full)
    with pytest.raises(SkinLesionError, match="No space left"):
        from_folder(tmp_path / "w", source)
    assert load(tmp_path / "w")[1].artifact.sha256 == before


def test_hard_links(tmp_path):
    source = tiny_datasets.write_official(tmp_path / "s")
    from_folder(tmp_path / "w", source, link=True)
    name = "ISIC_0000004.jpg"
    linked = Workspace(tmp_path / "w").images / name
    assert linked.samefile(source / "ISIC2018_Task3_Training_Input" / name)


def test_metadata_reaches_the_manifest_and_the_unknown_stays_empty(tmp_path):
    from_folder(tmp_path / "w", tiny_datasets.write_official(tmp_path / "s"))
    rows = load(tmp_path / "w")[1].rows(["ISIC_0000000", "ISIC_0000001"])
    assert rows["age_years"].tolist() == ["", "45"]
    assert rows["sex"].tolist() == ["", "male"]
    assert rows["site"].tolist() == ["", "back"]
    assert rows["lesion_id"].tolist() == ["HAM_0000000", "HAM_0000001"]


def test_a_near_duplicate_is_found_and_moved(tmp_path):
    source = tiny_datasets.write_official(tmp_path / "s")
    images = source / "ISIC2018_Task3_Training_Input"
    # One photograph again, smaller and at another quality, under the lesion of another image.
    from_folder(tmp_path / "w", source, split="grouped")
    _, manifest, split = load(tmp_path / "w")
    lesion_of = dict(zip(manifest.table["id"], manifest.table["lesion_id"], strict=True))
    first = split.ids("train")[0]
    second = next(i for i in split.ids("val") if lesion_of[i] != lesion_of[first])
    (images / f"{second}.jpg").write_bytes(tiny_datasets.jpeg(int(first[5:]), (60, 45), quality=60))

    result = from_folder(tmp_path / "w", source, split="grouped", check_duplicates=True)
    found = Duplicates.load(Workspace(tmp_path / "w").duplicates)
    assert found.table[["first", "second"]].values.tolist() == [sorted([first, second])]
    assert (found.n_across_lesions, found.n_across_parts, found.moved) == (1, 1, False)
    assert any("two sides" in warning for warning in result.warnings)

    from_folder(tmp_path / "w", source, split="grouped", move_duplicates=True)
    _, _, moved = load(tmp_path / "w")
    part_of = dict(zip(moved.table["id"], moved.table["part"], strict=True))
    assert part_of[first] == part_of[second]
    assert Duplicates.load(Workspace(tmp_path / "w").duplicates).n_across_parts == 0


def test_the_published_split_says_how_much_it_leaks(tmp_path):
    result = from_folder(tmp_path / "w", tiny_datasets.write_official(tmp_path / "s"), split="published")
    _, _, split = load(tmp_path / "w")
    assert split.leaks_lesions
    part_of = dict(zip(split.table["id"], split.table["part"], strict=True))
    lesions = {
        part: {tiny_datasets.LESION_OF[i] for i, p in part_of.items() if p == part}
        for part in ("train", "val")
    }
    leaking = [
        i for i in split.ids("test") if tiny_datasets.LESION_OF[i] in lesions["train"] | lesions["val"]
    ]
    assert split.artifact.body["leaking_images"]["test"] == len(leaking)
    assert any(f"{len(leaking)} of {len(split.ids('test'))} test images" in note for note in result.warnings)


def test_wrong_usage(tmp_path):
    for settings, message in (
        ({"split": "random"}, "there is no 'random'"),
        ({"parts": ("training", "tset")}, "there is no 'tset'"),
        ({"split": "published", "move_duplicates": True}, "--move-duplicates"),
        ({"source": tmp_path / "none"}, "does not exist"),
        ({"source": tmp_path, "dry_run": True}, "--dry-run"),
        ({"source": tmp_path}, "looks like no source"),
        ({"source": tmp_path, "source_format": "dicom"}, "there is no 'dicom'"),
    ):
        with pytest.raises(UsageError, match=message):
            run(DownloadSettings(workspace=tmp_path / "w", **settings), SilentReporter())


def test_a_split_of_another_dataset_is_refused(tmp_path):
    source = tiny_datasets.write_official(tmp_path / "s")
    from_folder(tmp_path / "w", source)
    from_folder(tmp_path / "v", source)
    workspace = Workspace(tmp_path / "w")
    row = "ISIC_0000000.jpg"
    (source / "ISIC2018_Task3_Training_Input" / row).write_bytes(tiny_datasets.jpeg(99))
    from_folder(tmp_path / "v", source)
    for file in Workspace(tmp_path / "v").dataset.glob("manifest*"):
        (workspace.dataset / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ArtifactError, match="was made from manifest"):
        load(tmp_path / "w")
