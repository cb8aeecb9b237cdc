"""Where output goes: nothing of the user's is replaced, and what is replaced is said."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from skinlesion_cli.artifacts.files import exclusive
from skinlesion_cli.artifacts.output_checks import MARK
from tests.support.command_line import assert_refused, contents, rows_of, run
from tests.support.limits import HANG_S

pytestmark = pytest.mark.command_line


@pytest.fixture
def here(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in: `in/` with four images, `a.jpg`, `list.txt` and `scans.zip`."""
    shutil.copytree(images, tmp_path / "in")
    first = sorted((tmp_path / "in").rglob("*.jpg"))[0]
    shutil.copy(first, tmp_path / "a.jpg")
    (tmp_path / "list.txt").write_text("a.jpg\n")
    import zipfile

    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        archive.write(first, "a.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def before(here: Path) -> Iterator[dict[str, bytes]]:
    """What is in the folder; it is still all there, and nothing else, when the test is over."""
    found = contents(here)
    yield found
    assert contents(here) == found


@pytest.mark.parametrize(
    ("named", "output"),
    [
        ("a.jpg", "a.jpg"),
        ("in/a/image 000.jpg", "in/../in/a/image 000.jpg"),
        ("in/*/*.jpg", "in/a/image 000.jpg"),
        ("in", "in/a/image 000.jpg"),
        ("@list.txt", "list.txt"),
        ("@list.txt", "a.jpg"),
        ("scans.zip", "scans.zip"),
    ],
)
@pytest.mark.parametrize("command", ["predict", "select"])
def test_an_output_onto_an_input_is_refused(
    command: str, named: str, output: str, before: dict[str, bytes], tiny_workspace: Path
) -> None:
    kind = ("--format", "csv") if command == "predict" else ()
    done = run(command, named, "-o", output, *kind, "-w", tiny_workspace)
    assert_refused(done, 2, Path(output).name)


FOREIGN = {
    "lab.csv": "id,diagnosis\n1,MEL\n",
    "lab.jsonl": '{"id": 1}\n',
    "lab.parquet": "PAR1 but no table",
    "labelled.csv": "rank,image,label,decision,margin,entropy,disagreement,strategy,model_sha256\n"
    "1,a.jpg,MEL,NV,0,0,0,mixed,0\n",
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("options", [(), ("--overwrite",), ("--resume",)], ids=str)
def test_predict_replaces_no_table_of_others(
    name: str, options: tuple[str, ...], here: Path, tiny_workspace: Path
) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (here / name).write_text(FOREIGN[name])
    before = contents(here)
    done = run("predict", "a.jpg", "-o", name, *options, "-w", tiny_workspace)
    assert_refused(done, 2, name)
    assert contents(here) == before


def test_select_replaces_no_list_that_somebody_has_labelled(here: Path, tiny_workspace: Path) -> None:
    assert run("select", "in", "-o", "list.csv", "-w", tiny_workspace).exit_code == 0
    assert run("select", "in", "-o", "list.csv", "-w", tiny_workspace).exit_code == 0
    header, first, *rest = (here / "list.csv").read_text().splitlines()
    rank, image, _, *others = first.split(",")
    (here / "list.csv").write_text("\n".join([header, ",".join([rank, image, "MEL", *others]), *rest]) + "\n")
    before = contents(here)
    assert_refused(run("select", "in", "-o", "list.csv", "-w", tiny_workspace), 2, "list.csv")
    assert contents(here) == before


@pytest.fixture
def shards(here: Path, tiny_workspace: Path) -> Path:
    for number in (1, 2):
        done = run(
            "predict", "in", "--shard", f"{number}/2", "-o", f"part-{number}.csv", "-w", tiny_workspace
        )
        assert done.exit_code == 0, done.output
    return here


def test_merge_replaces_no_shard_and_nothing_of_others(shards: Path) -> None:
    (shards / "lab.csv").write_text(FOREIGN["lab.csv"])
    before = contents(shards)
    assert_refused(run("merge", "part-1.csv", "part-2.csv", "-o", "part-1.csv"), 2, "part-1.csv")
    assert_refused(run("merge", "part-1.csv", "part-2.csv", "-o", "lab.csv"), 2, "lab.csv")
    assert_refused(run("merge", "part-1.csv", "part-2.csv", "-o", "in"), 2, "a folder")
    assert contents(shards) == before
    assert run("merge", "part-1.csv", "part-2.csv", "-o", "all.csv").exit_code == 0
    again = run("merge", "part-1.csv", "part-2.csv", "-o", "all.csv")
    assert again.exit_code == 0
    assert "replaces" in again.output


def test_merge_drops_no_rows_of_an_unfinished_predict(shards: Path) -> None:
    partial = shards / "all.csv.partial"
    shutil.copy(shards / "part-1.csv", partial)
    record = json.loads((shards / "part-1.csv.shard").read_text())
    (shards / "all.csv.partial.run").write_text(json.dumps(record | {"shard": None}))
    before = contents(shards)
    assert_refused(run("merge", "part-1.csv", "part-2.csv", "-o", "all.csv"), 2, "all.csv.partial")
    assert contents(shards) == before
    # What an unfinished merge has left is in the shards.
    (shards / "all.csv.partial.run").write_text(json.dumps(record | {"shard": None, "merge": True}))
    assert run("merge", "part-1.csv", "part-2.csv", "-o", "all.csv").exit_code == 0
    assert not partial.exists()


@pytest.mark.parametrize(
    "damage",
    ["[]", {"shard": []}, {"shard": [1]}, {"shard": [3, 2]}, {"shard": "12"}, {"inputs": 7}, {"columns": 5}],
)
def test_merge_refuses_a_damaged_record(damage: str | dict, shards: Path) -> None:
    path = shards / "part-1.csv.shard"
    record = json.loads(path.read_text())
    path.write_text(damage if isinstance(damage, str) else json.dumps(record | damage))
    assert_refused(run("merge", "part-1.csv", "part-2.csv", "-o", "all.csv"), 4, "part-1.csv.shard")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("status", "fine"),
        ("error", 25_000_000),
        ("triage", 1),
        ("p_MEL", "0.5"),
        ("row", True),
        ("row", None),
    ],
)
def test_merge_refuses_rows_with_values_of_other_kinds(
    column: str, value: object, here: Path, tiny_workspace: Path
) -> None:
    for number in (1, 2):
        arguments = ("predict", "in", "--shard", f"{number}/2", "-o", f"part-{number}.jsonl")
        assert run(*arguments, "-w", tiny_workspace).exit_code == 0
    first, *others = (here / "part-1.jsonl").read_text().splitlines(keepends=True)
    (here / "part-1.jsonl").write_text(
        "".join([json.dumps(json.loads(first) | {column: value}) + "\n", *others])
    )
    done = run("merge", "part-1.jsonl", "part-2.jsonl", "-o", "all.jsonl")
    assert_refused(done, 4, "row")
    assert not (here / "all.jsonl").exists()


def test_evaluate_replaces_no_input_and_nothing_of_others(own_calibrated: Path, here: Path) -> None:
    folder = here / "e"
    assert run("evaluate", "--resamples", 0, "-o", folder, "-w", own_calibrated).exit_code == 0
    # The same again is an earlier result.
    assert run("evaluate", "--resamples", 0, "-o", folder, "-w", own_calibrated).exit_code == 0
    truth = "image,label,lesion_id\n" + "".join(
        f"{row['image']},NV,{row['image']}\n" for row in csv.DictReader((folder / "challenge.csv").open())
    )
    (here / "truth.csv").write_text(truth)
    before = contents(folder)
    table = folder / "challenge.csv"
    done = run("evaluate", "--source", table, "--truth", "truth.csv", "-o", folder, "-w", own_calibrated)
    assert_refused(done, 2, "challenge.csv", "input")
    assert contents(folder) == before
    (here / "f").mkdir()
    (here / "f" / "report.html").write_text("<html>mine</html>")
    arguments = ("evaluate", "--resamples", 0, "-o", here / "f", "-w", own_calibrated)
    assert_refused(run(*arguments, "--report"), 2, "report.html")
    assert contents(here / "f") == {"report.html": b"<html>mine</html>"}
    assert run(*arguments).exit_code == 0
    (here / "g").mkdir()
    (here / "g" / "challenge.csv").write_text("image,MEL\n")
    assert_refused(run(*arguments[:-4], "-o", here / "g", *arguments[-2:]), 2, "challenge.csv")
    assert contents(here / "g") == {"challenge.csv": b"image,MEL\n"}


def test_calibrate_replaces_no_input_and_nothing_of_others(own_calibrated: Path, here: Path) -> None:
    (here / "policy.yaml").write_text("policy: none\n")
    (here / "mine.json").write_text('{"kind": "calibration"}')
    before = contents(here)
    for output in ("policy.yaml", "mine.json", own_calibrated / "ensemble" / "ensemble.json", "in"):
        done = run("calibrate", "--policy-file", "policy.yaml", "-o", output, "-w", own_calibrated)
        assert_refused(done, 2, Path(output).name)
    assert contents(here) == before
    for _ in range(2):
        assert run("calibrate", "--policy", "none", "-o", "second.json", "-w", own_calibrated).exit_code == 0


def test_pack_writes_into_no_folder_of_others(here: Path, tiny_workspace: Path) -> None:
    (here / "victim").mkdir()
    (here / "model").symlink_to("victim")
    before = contents(here)
    assert_refused(run("pack", "-o", "in", "-w", tiny_workspace), 2, "in", "not empty")
    assert_refused(run("pack", "-o", "a.jpg", "-w", tiny_workspace), 2, "a.jpg")
    assert_refused(run("pack", "-o", "model", "-w", tiny_workspace), 2, "model", "link")
    assert contents(here) == before
    assert run("pack", "-o", "fresh", "-w", tiny_workspace).exit_code == 0


SPECIAL = ("device", "FIFO", "link to a device", "folder")


@pytest.mark.skipif(sys.platform == "win32", reason="no devices or FIFOs there")
@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("command", ["predict", "select", "merge", "calibrate", "explain", "evaluate"])
def test_an_output_onto_a_device_or_a_folder_is_refused(
    command: str, kind: str, shards: Path, own_calibrated: Path, tiny_workspace: Path
) -> None:
    output = shards / "out.csv"
    if kind == "device":
        # A terminal of our own: should the test fail, no device of the machine is replaced.
        _, follower = os.openpty()
        output = Path(os.ttyname(follower))
    elif kind == "FIFO":
        os.mkfifo(output)
    elif kind == "folder":
        output.mkdir()
        if command in ("explain", "evaluate"):
            (output / "kept.txt").write_text("kept")
            output = output / "kept.txt"
    else:
        output.symlink_to("/dev/null")
    arguments = {
        "predict": ("predict", "in", "--format", "csv", "-w", tiny_workspace),
        "select": ("select", "in", "-w", tiny_workspace),
        "explain": ("explain", "in", "-w", tiny_workspace),
        "merge": ("merge", "part-1.csv", "part-2.csv"),
        "calibrate": ("calibrate", "--policy", "none", "-w", own_calibrated),
        "evaluate": ("evaluate", "--resamples", 0, "-w", own_calibrated),
    }[command]
    mode = os.stat(output).st_mode
    names = sorted(os.listdir(shards))
    started = time.monotonic()
    done = run(*arguments, "-o", output)
    assert_refused(done, 2, output.name)
    assert time.monotonic() - started < 60
    assert os.stat(output).st_mode == mode
    assert sorted(os.listdir(shards)) == names


@pytest.mark.parametrize("place", ["a.csv.partial", "a.csv.shard", "a-cam", "a-report", "a-report.html"])
def test_what_lies_beside_the_table_is_checked_too(place: str, here: Path, tiny_workspace: Path) -> None:
    (here / place).write_text("mine")
    before = contents(here)
    if place == "a.csv.shard":
        (here / place).unlink()
        (here / place).mkdir()
        before = contents(here)
    done = run("predict", "in", "-o", "a.csv", "--report", "--overwrite", "-w", tiny_workspace)
    assert_refused(done, 2, place)
    assert contents(here) == before


def test_overlays_go_through_no_link(here: Path, tiny_workspace: Path) -> None:
    (here / "victim").mkdir()
    for link in ("o-cam", "o-report", "maps"):
        (here / link).symlink_to("victim")
    for arguments in (("-o", "o.csv", "--cam"), ("-o", "o.csv", "--report"), ("-o", "o.csv", "--report")):
        assert_refused(run("predict", "in", *arguments, "-w", tiny_workspace), 2, "o-cam", "link")
    (here / "o-cam").unlink()
    assert_refused(
        run("predict", "in", "-o", "o.csv", "--report", "-w", tiny_workspace), 2, "o-report", "link"
    )
    assert_refused(run("explain", "in", "-o", "maps", "-w", tiny_workspace), 2, "maps", "link")
    assert os.listdir(here / "victim") == []
    assert not (here / "o.csv").exists()
    # Nor through one below the folder.
    (here / "o-cam").mkdir()
    (here / "o-cam" / "a").symlink_to("../victim")
    assert_refused(run("predict", "in", "-o", "o.csv", "--cam", "-w", tiny_workspace), 2, "o-cam", "a")
    assert_refused(run("explain", "in", "-o", "o-cam", "-w", tiny_workspace), 2, "o-cam", "a")
    assert os.listdir(here / "victim") == []


def test_an_overlay_replaces_no_picture_of_the_users(here: Path, tiny_workspace: Path) -> None:
    (here / "o-cam" / "a").mkdir(parents=True)
    shutil.copy("a.jpg", here / "o-cam" / "a" / "image 000.jpg.cam.png")
    before = contents(here)
    assert_refused(
        run("predict", "in", "-o", "o.csv", "--cam", "-w", tiny_workspace), 2, "image 000.jpg.cam.png"
    )
    assert_refused(run("explain", "in", "-o", "o-cam", "-w", tiny_workspace), 2, "image 000.jpg.cam.png")
    # A folder that is an input takes no overlays.
    assert_refused(run("predict", "o-cam", "-o", "o.csv", "--cam", "-w", tiny_workspace), 2, "o-cam", "input")
    assert_refused(run("explain", "in", "-o", "in", "-w", tiny_workspace), 2, "input")
    (here / "table").mkdir()
    (here / "table" / "maps.csv").write_text("place,name\n")
    assert_refused(run("explain", "in", "-o", "table", "-w", tiny_workspace), 2, "maps.csv")
    (here / "table" / "maps.csv").unlink()
    (here / "table").rmdir()
    assert contents(here) == before


def test_overlays_of_earlier_versions_are_replaced(here: Path, tiny_workspace: Path) -> None:
    """Their folders have no mark: overlays are known by what they say, thumbnails by the page beside them."""
    arguments = ("predict", "in", "-o", "o.csv", "--report", "-w", tiny_workspace)
    assert run(*arguments).exit_code == 0
    first = {name: hashlib.sha256(data).hexdigest() for name, data in contents(here).items()}
    for folder in ("o-cam", "o-report"):
        (here / folder / MARK).unlink()
    assert run(*arguments).exit_code == 0
    second = {name: hashlib.sha256(data).hexdigest() for name, data in contents(here).items()}
    assert {name for name in first if first[name] != second[name]} <= {"o-report.html"}
    assert run("explain", "in", "-o", "m", "--raw", "npz", "-w", tiny_workspace).exit_code == 0
    assert run("explain", "in", "-o", "m", "--raw", "npz", "-w", tiny_workspace).exit_code == 0
    assert run("explain", "in", "-o", "m", "--raw", "png16", "-w", tiny_workspace).exit_code == 0
    assert run("explain", "in", "-o", "m", "--raw", "png16", "-w", tiny_workspace).exit_code == 0
    # Thumbnails without the page could be anybody's.
    (here / "o-report" / MARK).unlink()
    (here / "o-report.html").unlink()
    assert_refused(run(*arguments), 2, "o-report")


def test_two_tables_share_no_folder_of_overlays(here: Path, tiny_workspace: Path) -> None:
    assert run("predict", "in", "-o", "st.csv", "--cam", "-w", tiny_workspace).exit_code == 0
    before = contents(here)
    second = ("predict", "in", "-o", "st.jsonl", "--cam", "-w", tiny_workspace)
    assert_refused(run(*second), 2, "st-cam", "st.csv")
    assert contents(here) == before
    (here / "st.csv").unlink()
    assert run(*second).exit_code == 0


def test_two_runs_at_once_share_no_folder_of_overlays(here: Path, tiny_workspace: Path) -> None:
    (here / "st-cam").mkdir()
    with exclusive(here / "st-cam", "overlays"):
        done = run("predict", "in", "-o", "st.jsonl", "--cam", "-w", tiny_workspace)
    assert_refused(done, 1, "st-cam", f"process {os.getpid()}")
    assert not (here / "st.jsonl").exists()


@pytest.mark.parametrize("name", ["o.csv", "o.jsonl", "o.parquet"])
def test_replacing_a_finished_table_is_said(name: str, here: Path, tiny_workspace: Path) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    first = run("predict", "in", "-o", name, "-w", tiny_workspace)
    assert first.exit_code == 0
    assert "replace" not in first.output
    second = run("predict", "a.jpg", "-o", name, "-w", tiny_workspace)
    assert second.exit_code == 0, second.output
    assert f"{name} is a finished table of predictions; this run replaces it" in second.output
    envelope = json.loads(run("predict", "in", "-o", name, "--json", "-q", "-w", tiny_workspace).stdout)
    assert [warning for warning in envelope["warnings"] if "replaced" in warning and name in warning]


@pytest.mark.parametrize("output", ["in", "in/", "a.jpg/o.csv", "/proc/o.csv", "/proc/nothing/o.csv"])
def test_an_output_that_cannot_be_is_told_before_the_model_is_read(
    output: str, here: Path, tmp_path: Path
) -> None:
    """There is no model in this workspace: had it been looked for first, that would be the message."""
    (tmp_path / "ws" / "models" / "begun").mkdir(parents=True)
    done = run("predict", "a.jpg", "-o", output, "-w", tmp_path / "ws")
    if output.startswith("/proc"):
        assert_refused(done, 1, "/proc", "cannot write")
    else:
        assert_refused(done, 2, output.rstrip("/").partition("/")[0], "folder")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_overlays_of_names_that_begin_like_formulas_are_found_from_the_page(
    kind: str, here: Path, tiny_workspace: Path
) -> None:
    (here / "odd").mkdir()
    for name in ("=1.jpg", "+2.jpg", "-3.jpg", "@4.jpg", "'=5.jpg", "ok.jpg"):
        shutil.copy("a.jpg", here / "odd" / name)
    done = run("predict", "odd", "-o", f"o.{kind}", "--report", "-w", tiny_workspace)
    assert done.exit_code == 0, done.output
    data = re.search(r'"rows":(\[.*?\]),"classes"', (here / "o-report.html").read_text("utf-8"), re.DOTALL)
    assert data is not None
    rows = json.loads(data.group(1))
    assert {row["id"] for row in rows} == {"=1.jpg", "+2.jpg", "-3.jpg", "@4.jpg", "'=5.jpg", "ok.jpg"}
    assert all((here / row["overlay"]).is_file() for row in rows)
    assert all(row["thumb"] for row in rows)


@pytest.mark.parametrize("command", ["predict", "explain"])
def test_an_image_that_vanishes_before_its_overlay_is_drawn_costs_its_own_row(
    command: str, here: Path, tiny_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    from skinlesion_cli.inference.predictor import Predictor

    (here / "big").mkdir()
    for index, path in enumerate(sorted((here / "in").rglob("*.jpg"))):
        # So large that it is read reduced, and again for its overlay.
        Image.open(path).resize((640, 480)).save(here / "big" / f"{index}.jpg")
    run_batch = Predictor.run

    def then_remove(self: Predictor, *arguments: object, **options: object) -> object:
        batch = run_batch(self, *arguments, **options)
        (here / "big" / "1.jpg").unlink(missing_ok=True)
        return batch

    monkeypatch.setattr(Predictor, "run", then_remove)
    if command == "predict":
        done = run("predict", "big", "--cam", "-o", "o.csv", "--batch", 4, "-w", tiny_workspace)
        assert done.exit_code == 3, done.output
        rows = rows_of(here / "o.csv")
        assert {name: row["status"] for name, row in rows.items()} == {
            "0.jpg": "ok",
            "1.jpg": "error",
            "2.jpg": "ok",
            "3.jpg": "ok",
        }
        assert rows["1.jpg"]["error"].startswith("missing: ")
        assert rows["1.jpg"]["decision"] == ""
    else:
        done = run("explain", "big", "--class", "MEL", "--class", "NV", "-o", "o-cam", "-w", tiny_workspace)
        assert done.exit_code == 3, done.output
        assert "1 image could not be read: 1.jpg (missing: " in done.output
        with (here / "o-cam" / "maps.csv").open(newline="") as file:
            names = [row["id"] for row in csv.DictReader(file)]
        assert sorted(names) == ["0.jpg", "0.jpg", "2.jpg", "2.jpg", "3.jpg", "3.jpg"]
    overlays = {path.name.partition(".cam")[0] for path in (here / "o-cam").rglob("*.png")}
    assert overlays == {"0.jpg", "2.jpg", "3.jpg"}


def test_nothing_but_results_is_left_behind(here: Path, tiny_workspace: Path, own_calibrated: Path) -> None:
    hidden = lambda: {path.name for path in here.rglob(".*")} - {MARK}  # noqa: E731
    assert run("predict", "in", "-o", "o.csv", "--report", "-w", tiny_workspace).exit_code == 0
    assert run("explain", "in", "-o", "maps", "-w", tiny_workspace).exit_code == 0
    assert run("select", "in", "-o", "s.csv", "-w", tiny_workspace).exit_code == 0
    assert run("evaluate", "--resamples", 0, "-o", "e", "-w", own_calibrated).exit_code == 0
    assert run("calibrate", "--policy", "none", "-o", "c.json", "-w", own_calibrated).exit_code == 0
    assert run("pack", "-o", "m", "-w", tiny_workspace).exit_code == 0
    assert hidden() == set()
    # Nor by a run that fails before its first row.
    (here / "empty").mkdir()
    assert run("predict", "empty", "-o", "x.csv", "--cam", "-w", tiny_workspace).exit_code == 2
    assert not [name for name in os.listdir(here) if name.startswith("x")]
    assert hidden() == set()


LOCKING = """
import sys, time
from pathlib import Path
from skinlesion_cli.artifacts.files import exclusive
from skinlesion_cli.errors import SkinLesionError
folder, taken = Path(sys.argv[1]), 0
end = time.monotonic() + 2.0
while time.monotonic() < end:
    try:
        with exclusive(folder, "test"):
            (folder / "held").mkdir()
            (folder / "held").rmdir()
            taken += 1
    except SkinLesionError:
        pass
print(taken)
"""


def test_a_lock_whose_file_is_removed_holds_out_others_all_the_same(tmp_path: Path) -> None:
    """Three processes take one lock in turn; `mkdir` fails where two of them hold it."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LOCKING, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    results = [process.communicate(timeout=HANG_S) for process in processes]
    assert [error for _, error in results if error] == []
    assert sum(int(taken) for taken, _ in results) > 10
    assert os.listdir(tmp_path) == []


def test_rows_of_two_runs_do_not_mix(here: Path, tiny_workspace: Path) -> None:
    """The earlier table stays whole until the new one takes its name."""
    assert run("predict", "in", "-o", "o.csv", "-w", tiny_workspace).exit_code == 0
    assert run("predict", "a.jpg", "-o", "o.csv", "-w", tiny_workspace).exit_code == 0
    assert list(rows_of(here / "o.csv")) == ["a.jpg"]
