"""Watching a folder: images once they are complete, each once, across restarts."""

from __future__ import annotations

import csv
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from skinlesion_cli.data.reading.arrivals import Arrivals
from skinlesion_cli.errors import ArtifactError, SkinLesionError, UsageError
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages.predict import stage, watch
from skinlesion_cli.stages.predict.settings import PredictSettings
from tests.support import tiny_models


class Ended(BaseException):
    """What a signal does to a watch."""


class Notes(SilentReporter):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def picture(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((64, 48), Image.Resampling.BICUBIC).save(path)
    return path


def watched(settings: PredictSettings, *between: Callable[[], Any]) -> list[str]:
    """The notes of a watch; before each further look one of these is done, after the last it is ended."""
    notes, todo = Notes(), iter(between)

    def pause(_seconds: float) -> None:
        act = next(todo, None)
        if act is None:
            raise Ended
        act()

    with pytest.raises(Ended):
        watch.run(settings, notes, pause=pause)
    return notes.texts


def at_most(pauses: int) -> Callable[[float], None]:
    """The pause of a watch that has to be refused after at most so many."""
    left = iter(range(pauses))

    def pause(_seconds: float) -> None:
        if next(left, None) is None:
            pytest.fail("the watch was not refused")

    return pause


def nothing() -> None:
    pass


def ids(path: Path) -> list[tuple[str, str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [(row["row"], row["id"], row["status"]) for row in csv.DictReader(file)]


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


@pytest.fixture
def settings(tiny_workspace: Path, inbox: Path, tmp_path: Path) -> Callable[..., PredictSettings]:
    def make(**more: Any) -> PredictSettings:
        given = {"workspace": tiny_workspace, "inputs": (str(inbox),), "output": tmp_path / "out.csv"}
        return PredictSettings(**(given | more))

    return make


def test_a_file_is_complete_when_two_looks_find_it_the_same(inbox: Path) -> None:
    arrivals = Arrivals(inbox, known=["old.png"])
    picture(inbox / "old.png", 0)
    whole = picture(inbox / "whole.png", 1).read_bytes()
    (inbox / "growing.png").write_bytes(whole[:20])
    (inbox / "empty.png").touch()
    (inbox / "later.png.part").write_bytes(whole)
    (inbox / ".hidden.png").write_bytes(whole)
    (inbox / "notes.txt").write_text("no image")
    assert arrivals.look() == []
    (inbox / "growing.png").write_bytes(whole)
    assert [source.id for source in arrivals.look()] == ["whole.png"]
    assert arrivals.passed_over == {"txt": 1}
    (inbox / "later.png.part").rename(inbox / "later.png")
    assert [source.id for source in arrivals.look()] == ["growing.png"]
    assert [source.id for source in arrivals.look()] == ["later.png"]
    # Another photograph under a name that was handed out.
    os.utime(inbox / "whole.png", ns=(1, 1))
    assert arrivals.look() == []
    assert arrivals.changed == ["whole.png"]
    assert arrivals.look() == []
    assert arrivals.changed == []


def test_what_is_no_image_is_looked_at_again_when_it_changes(inbox: Path) -> None:
    arrivals = Arrivals(inbox)
    whole = picture(inbox / "later.png", 1).read_bytes()
    (inbox / "later.png").rename(inbox / "scan")
    # As Windows copies: the size first, the content later.
    (inbox / "scan").write_bytes(b"\0" * len(whole))
    (inbox / "table.csv").write_text("row\n")
    assert arrivals.look() + arrivals.look() == []
    assert arrivals.passed_over.total() == 2
    (inbox / "scan").write_bytes(whole)
    (inbox / "table.csv").write_text("row\n1\n")
    assert arrivals.look() == []
    assert arrivals.changed == []
    assert [source.id for source in arrivals.look()] == ["scan"]
    assert arrivals.changed == []
    assert arrivals.passed_over.total() == 2
    assert arrivals.waiting == 0


def test_images_are_predicted_once_as_they_come_and_the_page_follows(
    settings: Callable[..., PredictSettings], inbox: Path, tmp_path: Path
) -> None:
    out, page = tmp_path / "out.csv", tmp_path / "out-report.html"
    picture(inbox / "b.png", 1)

    def second() -> None:
        assert ids(out) == [("1", "b.png", "ok")]
        assert "b.png" in page.read_text(encoding="utf-8")
        picture(inbox / "visit" / "a.png", 2)
        (inbox / "c.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")

    notes = watched(settings(report=True), nothing, second, nothing, nothing)
    expected = [("1", "b.png", "ok"), ("2", "c.png", "error"), ("3", "visit/a.png", "ok")]
    assert ids(out) == expected
    assert "visit/a.png" in page.read_text(encoding="utf-8")
    assert any(note.startswith("2 new images: ") and "c.png" in note for note in notes)
    # The rows are those that predicting the folder in one go gives.
    whole = settings(output=tmp_path / "whole.csv")
    stage.run(whole, SilentReporter())
    by_id = {}
    for path in (out, tmp_path / "whole.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            by_id[path.name] = {row["id"]: row["p_MEL"] for row in csv.DictReader(file)}
    assert by_id["out.csv"] == by_id["whole.csv"]


def test_a_page_that_takes_long_waits_nine_times_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    written = []

    def write() -> None:
        written.append(now[0])
        now[0] += 2.0

    page = watch._Page(write, outdated=True)
    page.write_when_due()
    assert written == [100.0]
    for look in range(1, 5):
        now[0], page.waited_s, page.outdated = now[0] + 5.0, page.waited_s + 5.0, True
        page.write_when_due()
        # It took 2 s: after 18 s of waiting, which are four looks, it is due.
        assert len(written) == (2 if look == 4 else 1)
    page.waited_s += 100.0
    page.write_when_due()
    assert len(written) == 2


def test_the_page_is_written_when_a_watch_is_started_again(
    settings: Callable[..., PredictSettings], inbox: Path, tmp_path: Path
) -> None:
    picture(inbox / "a.png", 1)
    watched(settings(), nothing)
    page = tmp_path / "out-report.html"
    assert not page.exists()
    watched(settings(report=True), nothing)
    assert "a.png" in page.read_text(encoding="utf-8")


def test_a_watch_that_was_ended_continues_and_cuts_off_half_a_row(
    settings: Callable[..., PredictSettings], inbox: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    picture(inbox / "a.png", 1)
    watched(settings(), nothing)
    first = out.read_bytes()
    out.write_bytes(first + first.splitlines()[1][:30])
    picture(inbox / "b.png", 2)
    notes = watched(settings(), nothing, nothing)
    assert ids(out) == [("1", "a.png", "ok"), ("2", "b.png", "ok")]
    assert out.read_bytes().startswith(first)
    assert any("1 image predicted before" in note for note in notes)


def test_another_image_under_a_known_name_is_named_after_a_restart_too(
    settings: Callable[..., PredictSettings], inbox: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    picture(inbox / "a.png", 1)
    picture(inbox / "b.png", 2)
    watched(settings(), nothing)
    assert not any("changed" in note for note in watched(settings(), nothing))
    # A copy that keeps the time at which the camera wrote it, while nobody watches.
    os.utime(out, ns=(1_000_000_000, 1_000_000_000))
    os.utime(picture(inbox / "a.png", 3), ns=(1, 1))
    os.utime(inbox / "b.png", ns=(2, 2))
    notes = watched(settings(), nothing, nothing)
    assert sum("changed after they were predicted" in note and "a.png" in note for note in notes) == 1
    assert ids(out) == [("1", "a.png", "ok"), ("2", "b.png", "ok")]


def test_what_is_not_predicted_is_noted_once(
    settings: Callable[..., PredictSettings], inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(inbox / "more.zip", "w") as archive:
        archive.write(picture(inbox / "locked" / "a.png", 1), "a.png")
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    notes = watched(settings(), nothing, nothing, nothing)
    assert sum("zip archive" in note for note in notes) == 1
    assert sum("locked cannot be read" in note for note in notes) == 1


def test_a_restart_does_not_give_a_patient_to_a_second_image_of_the_same_name(
    inbox: Path, tmp_path: Path
) -> None:
    workspace = tiny_models.make_workspace(tmp_path / "ws", metadata_fields=("age",))
    (tmp_path / "patients.csv").write_text("image,age\nIMG_1.png,63\n")
    settings = PredictSettings(
        workspace=workspace,
        inputs=(str(inbox),),
        output=tmp_path / "out.csv",
        patients=tmp_path / "patients.csv",
        runtime="torch",
    )
    picture(inbox / "monday" / "IMG_1.png", 1)
    watched(settings, nothing)
    picture(inbox / "tuesday" / "IMG_1.png", 2)
    with pytest.raises(UsageError, match=r"monday/IMG_1\.png and tuesday/IMG_1\.png"):
        watch.run(settings, SilentReporter(), pause=at_most(1))
    assert ids(tmp_path / "out.csv") == [("1", "monday/IMG_1.png", "ok")]


def test_two_watches_do_not_write_to_one_table_through_a_link(
    settings: Callable[..., PredictSettings], inbox: Path, tmp_path: Path
) -> None:
    out, link = tmp_path / "out.csv", tmp_path / "linked" / "link.csv"
    picture(inbox / "a.png", 1)
    watched(settings(), nothing)
    link.parent.mkdir()
    link.symlink_to(out)

    def second() -> None:
        with pytest.raises(SkinLesionError, match="in use by"):
            watch.run(settings(output=link), SilentReporter(), pause=at_most(1))

    watched(settings(), second)


def test_a_folder_that_goes_away_for_a_while_is_waited_for(
    settings: Callable[..., PredictSettings], inbox: Path, tmp_path: Path
) -> None:
    def back() -> None:
        (tmp_path / "away").rename(inbox)
        picture(inbox / "a.png", 1)

    notes = watched(settings(), lambda: inbox.rename(tmp_path / "away"), nothing, back, nothing, nothing)
    assert ids(tmp_path / "out.csv") == [("1", "a.png", "ok")]
    assert sum("cannot be read now" in note for note in notes) == 1


def test_a_table_of_another_model_or_of_other_columns_is_not_continued(
    settings: Callable[..., PredictSettings], inbox: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    picture(inbox / "a.png", 1)
    watched(settings(), nothing)
    kept = out.read_bytes()
    out.write_bytes(kept.replace(b"adaptive", b"none").replace(b",d4,", b",none,"))
    with pytest.raises(ArtifactError, match="has rows with tta none"):
        watch.run(settings(), SilentReporter())
    out.write_bytes(kept.replace(b"decision,", b"", 1))
    with pytest.raises(UsageError):
        watch.run(settings(), SilentReporter())
    assert out.read_bytes() == kept.replace(b"decision,", b"", 1)


@pytest.mark.parametrize(
    "more", [{"inputs": ("a.png", "b.png")}, {"resume": True}, {"shard": (1, 2)}, {"follow_links": True}]
)
def test_what_cannot_be_watched_is_refused(
    more: dict[str, Any], settings: Callable[..., PredictSettings]
) -> None:
    with pytest.raises(UsageError, match="--watch"):
        watch.run(settings(**more), SilentReporter())


def test_parquet_cannot_grow(settings: Callable[..., PredictSettings], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot grow"):
        watch.run(settings(output=tmp_path / "out.parquet"), SilentReporter())
    assert not (tmp_path / "out.parquet").exists()
