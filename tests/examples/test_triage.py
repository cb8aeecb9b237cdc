"""examples/triage.sh, night after night."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

# Each starts the command many times, and every start loads torch.
pytestmark = pytest.mark.slow
ODD = "-two\nlines 'and' =a \"quote\".jpg"


@pytest.fixture
def inbox(pictures: Path, tmp_path: Path) -> Path:
    """Four images, one of them with a name that breaks careless programs, and it sorts first."""
    folder = tmp_path / "in box"
    folder.mkdir()
    taken = sorted(pictures.rglob("*.jpg"))
    for name, source in zip((ODD, "a.jpg", "ä b.JPG", "ward/c.jpg"), taken, strict=False):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(source, folder / name)
    return folder


def runs(results: Path) -> list[Path]:
    return sorted(path for path in results.iterdir() if path.is_dir())


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]


def test_night_after_night(program, inbox, model, tmp_path):
    results = tmp_path / "re sults"

    def night(**variables: str):
        return program(
            "triage.sh", inbox, results, "--workspace", model, cwd=tmp_path, **{"SETTLE_S": "0"} | variables
        )

    first = night()
    assert first.returncode == 0, first.stderr
    (run,) = runs(results)
    done = rows(run)
    # Sorted, each folder before what is below it; a line break is shown as what it is.
    assert [Path(row["id"]).name for row in done] == [
        "-two\\x0alines 'and' =a \"quote\".jpg",
        "a.jpg",
        "ä b.JPG",
        "c.jpg",
    ]
    levels = [row["triage"] for row in done]
    told = re.search(
        r"4 new images: (\d) refer, (\d) review, (\d) routine; 0 could not be read; 0 still", first.stdout
    )
    assert told, first.stdout
    assert [int(n) for n in told.groups()] == [levels.count(x) for x in ("refer", "review", "routine")]
    # Those to refer come first, the most malignant at the top.
    refer = sorted((r for r in done if r["triage"] == "refer"), key=lambda r: -r["malignant_probability"])
    section = first.stdout.partition("REFER")[2].partition("REVIEW")[0].splitlines()[1:]
    assert refer
    assert [line.split("  ")[-1] for line in section if line] == [row["id"] for row in refer]
    assert (run / "summary.txt").read_text() == first.stdout

    second = night()
    assert second.returncode == 0
    assert "no new images" in second.stdout
    assert runs(results) == [run]

    # A new image, one that changed, one that cannot be read, and one that may still be on its way.
    shutil.copy(inbox / "a.jpg", inbox / "new.jpg")
    shutil.copy(inbox / "ä b.JPG", inbox / "a.jpg")
    (inbox / "broken.jpg").write_text("<html>")
    for name in ("new.jpg", "a.jpg", "broken.jpg"):
        os.utime(inbox / name, (1e9, 1e9))
    shutil.copy(inbox / "a.jpg", inbox / "coming.jpg")
    third = night(SETTLE_S="600")
    assert third.returncode == 3, third.stderr
    assert "3 new images: " in third.stdout
    assert "1 could not be read; 1 still on their way" in third.stdout
    assert [Path(row["id"]).name for row in rows(runs(results)[1])] == ["a.jpg", "broken.jpg", "new.jpg"]
    unread = third.stdout.partition("COULD NOT BE READ (1;")[2]
    assert re.search(r"broken.jpg: not_an_image", unread)

    # What could not be read does not come every night.
    assert "no new images" in night(SETTLE_S="600").stdout
    assert not list(results.glob("unfinished*"))


def test_a_failed_run_counts_nothing_as_done(program, inbox, model, tmp_path):
    arguments = ("triage.sh", inbox, tmp_path / "results", "--workspace")
    failed = program(*arguments, tmp_path / "none", cwd=tmp_path, SETTLE_S="0")
    assert failed.returncode == 4
    assert "FAILED with exit code 4; the 4 new images come again" in failed.stdout
    assert not (tmp_path / "results" / "seen").exists()
    again = program(*arguments, model, cwd=tmp_path, SETTLE_S="0")
    assert again.returncode == 0, again.stderr
    assert "4 new images" in again.stdout


def test_two_at_once_and_wrong_use(program, inbox, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    results = tmp_path / "results"
    results.mkdir()
    with (results / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = program("triage.sh", inbox, results, cwd=tmp_path)
    assert second.returncode == 75
    assert "another run is at work" in second.stderr
    assert program("triage.sh", inbox, cwd=tmp_path).returncode == 2
    absent = program("triage.sh", tmp_path / "none", results, cwd=tmp_path)
    assert absent.returncode == 2
    assert "there is no folder" in absent.stderr
