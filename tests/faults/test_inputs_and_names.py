"""What is named on the command line, in folders, in lists and in CSVs: odd names, odd files,
no files at all.
"""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path

import pytest

from tests.support.class_lists import ISIC2018
from tests.support.command_line import assert_refused, contents, files_below, probabilities, rows_of, run

pytestmark = pytest.mark.command_line


def test_one_name_in_two_folders_keeps_two_rows_and_two_overlays(
    tiny_workspace: Path, images: Path, tmp_path: Path
) -> None:
    first, second = sorted(images.rglob("*.jpg"))[:2]
    # The last three differ only in what is not printable, or becomes part of an escape.
    names = ("x.jpg", "ü ñ.jpg", "a\nb.jpg", "a\\x0ab.jpg", "-v.jpg")
    for folder, source in (("one", first), ("two", second)):
        (tmp_path / "in" / folder).mkdir(parents=True)
        for name in names:
            shutil.copy(source, tmp_path / "in" / folder / name)
    done = run("predict", tmp_path / "in", "--cam", "-o", tmp_path / "out.csv", "-w", tiny_workspace)
    assert done.exit_code == 0, done.output
    rows = rows_of(tmp_path / "out.csv")
    printed = ("x.jpg", "ü ñ.jpg", "a\\x0ab.jpg", "a\\\\x0ab.jpg", "-v.jpg")
    assert set(rows) == {f"{folder}/{name}" for folder in ("one", "two") for name in printed}
    assert probabilities(rows["one/x.jpg"]) != probabilities(rows["two/x.jpg"])
    for folder in ("one", "two"):
        assert len({probabilities(rows[f"{folder}/{name}"]) for name in printed}) == 1
    overlays = {row["overlay"] for row in rows.values()}
    assert len(overlays) == 10
    assert all((tmp_path / "out-cam" / name).is_file() for name in overlays)


def test_two_folders_that_are_named_share_no_id(tiny_workspace: Path, images: Path, tmp_path: Path) -> None:
    for folder in ("left", "right"):
        shutil.copytree(images, tmp_path / folder)
    folders = (tmp_path / "left", tmp_path / "right")
    done = run("predict", *folders, "-o", tmp_path / "out.csv", "-w", tiny_workspace)
    assert done.exit_code == 0, done.output
    assert len(rows_of(tmp_path / "out.csv")) == 8


def test_a_file_whose_name_begins_with_a_dash_is_named_after_two(
    tiny_workspace: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(next(images.rglob("*.jpg")), tmp_path / "-v.jpg")
    monkeypatch.chdir(tmp_path)
    done = run("predict", "-o", "out.csv", "-w", tiny_workspace, "--", "-v.jpg")
    assert done.exit_code == 0, done.output
    # A spreadsheet would take a dash for the beginning of a formula.
    assert list(rows_of(tmp_path / "out.csv")) == ["'-v.jpg"]


def test_names_in_a_list_that_name_nothing_cost_their_row(
    tiny_workspace: Path, images: Path, tmp_path: Path
) -> None:
    good = next(images.rglob("*.jpg"))
    listed = tmp_path / "list.txt"
    listed.write_bytes(
        b"\n".join([os.fsencode(good), b"x" * 5000 + b".jpg", b"\xff\xfe.jpg", b"nowhere.jpg", b"   ", b""])
    )
    done = run("predict", f"@{listed}", "-o", tmp_path / "out.csv", "-w", tiny_workspace)
    assert done.exit_code == 3, done.output
    rows = rows_of(tmp_path / "out.csv")
    assert [row["status"] for row in rows.values()] == ["ok", "error", "error", "error", "error"]
    assert [row["error"].partition(":")[0] for row in rows.values()] == [
        *("", "unreadable", "missing", "missing", "missing"),
    ]
    assert "\\udcff\\udcfe.jpg" in rows


def test_an_empty_list_is_wrong_usage(tiny_workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\n\r\n\n")
    done = run("predict", f"@{tmp_path / 'list.txt'}", "-o", tmp_path / "out.csv", "-w", tiny_workspace)
    assert_refused(done, 2, "there are no images in", "list.txt")
    assert files_below(tmp_path) == ["list.txt"]


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that nobody can read")
def test_a_file_that_cannot_be_read_costs_its_row(tiny_workspace: Path, images: Path, tmp_path: Path) -> None:
    # A regular file whose first byte not even the superuser may read.
    (tmp_path / "list.txt").write_text(f"/proc/self/mem\n{next(images.rglob('*.jpg'))}\n")
    done = run("predict", f"@{tmp_path / 'list.txt'}", "-o", tmp_path / "out.csv", "-w", tiny_workspace)
    assert done.exit_code == 3, done.output
    rows = rows_of(tmp_path / "out.csv")
    assert rows["/proc/self/mem"]["error"].startswith("unreadable: ")
    assert [row["status"] for row in rows.values()] == ["error", "ok"]


def test_links_and_pipes_in_a_source_are_not_followed(images: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    shutil.copytree(images / "b", secret)
    source = tmp_path / "in"
    for label, picture in zip(("MEL", "NV"), sorted((images / "a").iterdir()), strict=True):
        (source / label).mkdir(parents=True)
        shutil.copy(picture, source / label / "own.jpg")
    (source / "NV" / "outside").symlink_to(secret)
    (source / "NV" / "linked.jpg").symlink_to(next(secret.iterdir()))
    (source / "NV" / "loop").symlink_to(source)
    os.mkfifo(source / "NV" / "pipe.jpg")
    arguments = ("download", "--from", source, "--split", "grouped", "-w", tmp_path / "ws")
    assert_refused(run(*arguments), 1, "NV/pipe (not a regular file)")
    assert not (tmp_path / "ws" / "dataset" / "manifest.json").exists()
    (source / "NV" / "pipe.jpg").unlink()
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    kept = [name for name in files_below(tmp_path / "ws") if name.endswith(".jpg")]
    assert kept == ["dataset/images/MEL/own.jpg", "dataset/images/NV/own.jpg"]


ODD_IDS = ("NA", "001", "1e5", "null", "-0")


def test_odd_ids_come_out_of_evaluate_as_they_went_in(tmp_path: Path) -> None:
    lines = [",".join(["id", *(f"p_{name}" for name in ISIC2018.codes), "label", "lesion_id"])]
    lines += [f"{identity},0.4,0.6,0,0,0,0,0,NV,{identity}" for identity in ODD_IDS]
    (tmp_path / "p.csv").write_text("\n".join(lines) + "\n")
    done = run(
        "evaluate", "--source", tmp_path / "p.csv", "--resamples", 0, "-o", tmp_path / "e", "-w", tmp_path
    )
    assert done.exit_code == 0, done.output
    with (tmp_path / "e" / "challenge.csv").open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == list(ODD_IDS)


def test_odd_ids_come_into_a_dataset_as_they_are(images: Path, tmp_path: Path) -> None:
    sources = sorted(images.rglob("*.jpg"))
    lines = ["image,label,lesion_id,part"]
    for identity, source, part in zip(ODD_IDS[:4], sources, ("train", "train", "val", "test"), strict=True):
        shutil.copy(source, tmp_path / f"{identity}.jpg")
        lines.append(f"{identity},NV,{identity},{part}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    done = run("download", "--from", tmp_path / "labels.csv", "-w", tmp_path / "ws")
    assert done.exit_code == 0, done.output
    (table,) = (tmp_path / "ws" / "dataset").glob("manifest.table-*.csv")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["id"]: row["lesion_id"] for row in rows} == {identity: identity for identity in ODD_IDS[:4]}


LONG_ROW = {
    "download": ("image,label\na,MEL,\nb,NV,\n", ("download", "--from", "{}")),
    "evaluate": (
        "id," + ",".join(f"p_{name}" for name in ISIC2018.codes) + ",label\na,0,1,0,0,0,0,0,NV,9\n",
        ("evaluate", "--source", "{}"),
    ),
    "ensemble": (
        "id," + ",".join(f"p_{name}" for name in ISIC2018.codes) + ",label\na,0,1,0,0,0,0,0,NV,9\n",
        ("ensemble", "--predictions", "{}"),
    ),
}


@pytest.mark.parametrize(("text", "arguments"), LONG_ROW.values(), ids=LONG_ROW.keys())
def test_rows_longer_than_their_header_stop_the_command(
    text: str, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    table = tmp_path / "in" / "long.csv"
    table.write_text(text)
    filled = [argument.replace("{}", str(table)) for argument in arguments]
    done = run(*filled, "-w", tmp_path / "ws")
    assert_refused(done, 1, "long.csv", "more cells than its header")
    assert files_below(tmp_path) == ["in/long.csv"]


def test_a_second_dataset_that_cannot_be_read_leaves_the_first(images: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    for name, picture in zip(("MEL", "NV"), sorted(images.rglob("*.jpg")), strict=False):
        (source / name).mkdir(parents=True)
        shutil.copy(picture, source / name)
    arguments = ("download", "--from", source, "--split", "grouped", "-w", tmp_path / "ws")
    assert run(*arguments).exit_code == 0
    before = contents(tmp_path / "ws")
    (source / "NV" / "page.jpg").write_text("<html>404</html>")
    assert_refused(run(*arguments), 1, "page", "web page")
    assert {name: contents(tmp_path / "ws").get(name) for name in before} == before
