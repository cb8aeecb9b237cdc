"""`skinlesion predict` at the command line: rows, resuming, exit codes, bad input."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skinlesion_cli.artifacts.prediction_columns import shortest
from tests.support.class_lists import TABLE

pytestmark = pytest.mark.command_line

ROOT = Path(__file__).resolve().parents[2]
PROBABILITIES = [name for name in TABLE.names if name.startswith("p_")]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def whole(skinlesion, tiny_workspace: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of all 40 images in one go."""
    output = tmp_path_factory.mktemp("whole") / "all.csv"
    done = skinlesion("predict", images, "-o", output, "-w", tiny_workspace)
    assert done.returncode == 0, done.stderr
    return output


def start(workspace: Path, output: Path, names: list[Path], *more: str) -> subprocess.Popen[bytes]:
    """A run that has got these names and waits for more on stdin: it cannot end by itself."""
    command = [sys.executable, "-m", "skinlesion_cli", "predict", "-", "-o", str(output)]
    process = subprocess.Popen(
        [
            *command,
            "-w",
            str(workspace),
            "--batch",
            "1",
            *(more if "--workers" in more else ("--workers", "1", *more)),
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(b"".join(f"{name}\n".encode() for name in names))
    process.stdin.flush()
    return process


def has_rows(output: Path, n_rows: int) -> bool:
    partial = output.with_name(output.name + ".partial")
    return partial.exists() and partial.read_bytes().count(b"\n") > n_rows


def wait_for_rows(process: subprocess.Popen[bytes], output: Path, n_rows: int) -> None:
    for _ in range(6000):
        if has_rows(output, n_rows):
            return
        assert process.poll() is None, (process.stderr or sys.stderr).read()
        time.sleep(0.01)
    raise AssertionError("no rows came")


@pytest.fixture(scope="session")
def names(images: Path) -> list[Path]:
    return sorted(images.rglob("*.jpg"))


@pytest.fixture(scope="session")
def listed(
    skinlesion, tiny_workspace: Path, names: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> bytes:
    """The table of all 40 images, named on stdin, in one go."""
    output = tmp_path_factory.mktemp("listed") / "all.csv"
    done = skinlesion(
        "predict", "-", "-o", output, "-w", tiny_workspace, "--batch", "1", stdin="\n".join(map(str, names))
    )
    assert done.returncode == 0, done.stderr
    return output.read_bytes()


def test_one_row_an_image_in_input_order(whole: Path) -> None:
    rows = rows_of(whole)
    assert list(rows[0]) == list(TABLE.names)
    assert [row["id"] for row in rows[:2]] == ["a/image 000.jpg", "a/image 002.jpg"]
    assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
    assert [int(row["row"]) for row in rows] == list(range(1, 41))
    assert {row["forward_passes"] for row in rows} == {"16"}
    total = sum(float(rows[0][f"p_{name}"]) for name in ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"))
    assert total == pytest.approx(1.0, abs=1e-6)
    assert len({row["model_sha256"] for row in rows}) == 1


def test_killed_runs_resume_to_the_same_bytes(
    skinlesion, tiny_workspace: Path, names: list[Path], listed: bytes, tmp_path: Path
) -> None:
    output, partial = tmp_path / "all.csv", tmp_path / "all.csv.partial"
    for kill, n_rows in enumerate((1, 9, 23)):
        process = start(tiny_workspace, output, names[: n_rows + 5], *(["--resume"] if kill else []))
        wait_for_rows(process, output, n_rows)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not output.exists()
    # Half a line, as a kill in the middle of a write leaves it.
    partial.write_bytes(partial.read_bytes()[:-7])
    last = skinlesion(
        "predict", "-", "-o", output, "-w", tiny_workspace, "--batch", "1", "--resume",
        stdin="\n".join(map(str, names)),
    )  # fmt: skip
    assert last.returncode == 0, last.stderr
    assert output.read_bytes() == listed
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith(".")) == ["all.csv"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_keeps_the_finished_rows(
    number: int, code: int, tiny_workspace: Path, names: list[Path], listed: bytes, tmp_path: Path
) -> None:
    output = tmp_path / "all.csv"
    process = start(tiny_workspace, output, names[:8])
    wait_for_rows(process, output, 3)
    process.send_signal(number)
    assert process.stderr is not None
    errors = process.stderr.read()
    assert process.wait() == code, errors
    kept = (tmp_path / "all.csv.partial").read_bytes()
    assert kept.count(b"\n") >= 4
    assert listed.startswith(kept)
    assert not output.exists()


def test_a_second_run_in_one_output_fails_and_says_who_holds_it(
    skinlesion, tiny_workspace: Path, names: list[Path], images: Path, tmp_path: Path
) -> None:
    output = tmp_path / "all.csv"
    first = start(tiny_workspace, output, names[:8])
    wait_for_rows(first, output, 1)
    second = skinlesion("predict", images, "-o", output, "-w", tiny_workspace, "--resume")
    first.kill()
    first.communicate()
    assert second.returncode == 1
    assert f"process {first.pid}" in second.stderr


def test_unfinished_rows_are_neither_dropped_nor_mixed_unasked(
    skinlesion, tiny_workspace: Path, names: list[Path], images: Path, tmp_path: Path
) -> None:
    output = tmp_path / "all.csv"
    process = start(tiny_workspace, output, names[:8])
    wait_for_rows(process, output, 1)
    process.kill()
    process.communicate()
    arguments = ("-o", output, "-w", tiny_workspace, "--batch", "1")
    unasked = skinlesion("predict", images, *arguments)
    assert unasked.returncode == 2
    assert "--resume" in unasked.stderr
    other = skinlesion("predict", images, *arguments, "--resume", "--tta", "none", "--force")
    assert other.returncode == 4
    assert "'as calibrated' then, 'none' now" in other.stderr
    moved = skinlesion("predict", images / "b", *arguments, "--resume")
    assert moved.returncode == 4
    assert "the inputs have changed" in moved.stderr


def test_bad_images_cost_their_own_row_only(skinlesion, tiny_workspace: Path, images: Path, tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    good = (images / "a" / "image 000.jpg").read_bytes()
    (folder / "good.jpg").write_bytes(good)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "page.jpg").write_text("<html>404</html>")
    (folder / "cut.jpg").write_bytes(good[: len(good) // 2])
    (folder / "=1+1.jpg").write_bytes(good)
    (folder / "two\nlines.jpg").write_bytes(good)
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    (folder / "outside").symlink_to("/")
    os.mkfifo(folder / "pipe.jpg")
    output = tmp_path / "out.csv"
    done = skinlesion("predict", folder, "-o", output, "-w", tiny_workspace, "--json")
    assert done.returncode == 3, done.stderr
    found = {row["id"]: row for row in rows_of(output)}
    assert {name: row["error"].split(":")[0] for name, row in found.items()} == {
        "good.jpg": "",
        "empty.jpg": "empty",
        "page.jpg": "not_an_image",
        "cut.jpg": "truncated",
        "'=1+1.jpg": "",
        "two\\x0alines.jpg": "",
        "loop.jpg": "link",
        "outside": "link",
        "pipe.jpg": "not_a_file",
    }
    assert found["empty.jpg"]["p_MEL"] == ""
    assert found["good.jpg"]["p_MEL"] == found["two\\x0alines.jpg"]["p_MEL"] != ""
    summary = json.loads(done.stdout)
    assert summary["figures"]["images"] == 3
    assert summary["figures"]["failed"] == 6


def test_lists_archives_and_stdin_to_stdout(skinlesion, tiny_workspace: Path, images: Path, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        archive.write(images / "a" / "image 000.jpg", "x/one.jpg")
        archive.writestr("notes.txt", "no image")
    (tmp_path / "more.txt").write_text(f"{images / 'b' / 'image 001.jpg'}\n\nmissing.jpg\r\n")
    done = skinlesion(
        "predict", "scans.zip", "@more.txt", "-", "-o", "-", "-w", tiny_workspace,
        cwd=tmp_path, stdin=f"{images / 'a' / 'image 000.jpg'}\0",
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["id"] for row in rows] == [
        "scans.zip/x/one.jpg",
        str(images / "b" / "image 001.jpg"),
        "missing.jpg",
        str(images / "a" / "image 000.jpg"),
    ]
    assert [row["status"] for row in rows] == ["ok", "ok", "error", "ok"]
    assert rows[0]["p_MEL"] == rows[3]["p_MEL"]
    assert "3 images predicted" in done.stderr


@pytest.mark.parametrize("member", ["../out.jpg", "/abs.jpg"])
def test_an_unsafe_archive_is_refused_whole(
    member: str, skinlesion, tiny_workspace: Path, images: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.write(images / "a" / "image 000.jpg", "fine.jpg")
        # write() would make the name harmless.
        archive.writestr(zipfile.ZipInfo(member), (images / "a" / "image 000.jpg").read_bytes())
    done = skinlesion("predict", "bad.zip", "-o", "out.csv", "-w", tiny_workspace, cwd=tmp_path)
    assert done.returncode == 1
    assert "the whole archive is refused" in done.stderr
    assert not (tmp_path / "out.csv").exists()


def test_nothing_to_predict_is_wrong_usage(skinlesion, tiny_workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    empty = skinlesion("predict", "empty", "-w", tiny_workspace, cwd=tmp_path)
    missing = skinlesion("predict", "nowhere", "-w", tiny_workspace, cwd=tmp_path)
    assert (empty.returncode, missing.returncode) == (2, 2)
    assert "there are no images in empty" in empty.stderr
    assert "nowhere" in missing.stderr
    assert not (tmp_path / "predictions.csv.partial").exists()


def test_another_tta_needs_force_and_is_recorded(
    skinlesion, tiny_workspace: Path, images: Path, tmp_path: Path
):
    arguments = ("predict", images / "a" / "image 000.jpg", "-o", tmp_path / "o.csv", "-w", tiny_workspace)
    refused = skinlesion(*arguments, "--tta", "none")
    assert refused.returncode == 2
    assert "calibrated with d4" in refused.stderr
    forced = skinlesion(*arguments, "--tta", "none", "--force")
    assert forced.returncode == 0, forced.stderr
    (row,) = rows_of(tmp_path / "o.csv")
    assert (row["tta"], row["forward_passes"]) == ("none (forced)", "2")


def test_a_reader_that_leaves_ends_it_quietly(tiny_workspace: Path, names: list[Path]) -> None:
    process = start(tiny_workspace, Path("-"), names)
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b'{"row": 1')
    process.stdout.close()
    assert process.stdin is not None
    process.stdin.write(b"".join(f"{name}\n".encode() for name in names))
    process.stdin.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    assert process.wait() == 0
    assert b"Traceback" not in errors


def test_a_long_list_starts_at_once(tiny_workspace: Path, images: Path) -> None:
    """Rows come while the list is still being written."""
    process = subprocess.Popen(
        [sys.executable, "-m", "skinlesion_cli", "predict", "-", "-o", "-", "--batch", "1",
         "-w", str(tiny_workspace)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    name = f"{images / 'a' / 'image 000.jpg'}\n".encode()
    process.stdin.write(name * 20)
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["row"] == 1
    process.stdin.close()
    assert len(process.stdout.readlines()) == 19
    assert process.wait() == 0


def test_dicom_by_a_pattern_into_json_lines(
    skinlesion, tiny_workspace: Path, images: Path, whole: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pydicom")
    from test_inputs import _dicom

    with Image.open(images / "a" / "image 000.jpg") as picture:
        _dicom(tmp_path / "one.dcm", np.asarray(picture), "RGB", 8)
    done = skinlesion(
        "predict", "*.dcm", "-o", "rows.txt", "--format", "jsonl", "-w", tiny_workspace, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    (row,) = [json.loads(line) for line in (tmp_path / "rows.txt").read_text().splitlines()]
    assert (row["row"], row["id"], row["status"]) == (1, "one.dcm", "ok")
    # The same pixels as the photograph, and the same float32 to the last digit.
    first = rows_of(whole)[0]
    assert {name: shortest(row[name]) for name in PROBABILITIES} == {
        name: first[name] for name in PROBABILITIES
    }


def test_the_parquet_table_holds_the_same(
    skinlesion, tiny_workspace: Path, images: Path, whole: Path, tmp_path: Path
):
    parquet = pytest.importorskip("pyarrow.parquet")
    done = skinlesion("predict", images, "-o", tmp_path / "all.parquet", "-w", tiny_workspace)
    assert done.returncode == 0, done.stderr
    table = parquet.read_table(tmp_path / "all.parquet")
    assert table.column_names == list(TABLE.names)
    assert str(table.schema.field("p_MEL").type) == "float"
    wanted = [row["p_MEL"] for row in rows_of(whole)]
    assert [shortest(value) for value in table["p_MEL"].to_pylist()] == wanted


def test_a_read_only_folder_is_a_clear_error(skinlesion, tiny_workspace: Path, images: Path, tmp_path: Path):
    done = skinlesion("predict", images, "-o", "/proc/nothing/out.csv", "-w", tiny_workspace)
    assert done.returncode == 1
    assert "cannot write in /proc/nothing" in done.stderr
    assert "should not happen" not in done.stderr


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for its worker processes in /proc")
def test_a_worker_that_dies_costs_nothing_but_time(
    tiny_workspace: Path, names: list[Path], listed: bytes, tmp_path: Path
) -> None:
    output = tmp_path / "all.csv"
    process = start(tiny_workspace, output, names[:24], "--backend", "local", "--workers", "2")
    # Not until rows have come: joblib takes the next task in the thread that takes answers, so while no name
    # comes the first answer may wait behind later ones.
    workers: list[int] = []
    for _ in range(6000):
        workers = _workers_of(process.pid)
        if len(workers) == 2:
            break
        assert process.poll() is None
        time.sleep(0.01)
    assert workers
    os.kill(workers[0], signal.SIGKILL)
    assert process.stdin is not None
    process.stdin.write(b"".join(f"{name}\n".encode() for name in names[24:]))
    process.stdin.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    assert process.wait() == 0, errors
    assert b"a worker died" in errors
    assert output.read_bytes() == listed


def _workers_of(parent: int) -> list[int]:
    entries = (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [int(entry.name) for entry in entries if _is_worker_of(entry, parent)]


def _is_worker_of(entry: Path, parent: int) -> bool:
    try:
        status = (entry / "stat").read_text().rpartition(")")[2].split()
        return int(status[1]) == parent and b"popen_loky" in (entry / "cmdline").read_bytes()
    except OSError:
        return False
