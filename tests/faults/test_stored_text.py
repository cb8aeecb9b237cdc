"""What a stranger's file says of itself is stored and printed escaped, and costs one row."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from skinlesion_cli.errors import one_line
from tests.fuzzing.pictures import dicom_file, picture
from tests.support.command_line import rows_of, run

pytestmark = pytest.mark.command_line
ESCAPE = "\x1b[31mX"


def unprintable(text: str) -> list[str]:
    return [character for character in text if not character.isprintable() and character != "\n"]


def dicom_with_escapes() -> bytes:
    import pydicom

    dataset = pydicom.dcmread(io.BytesIO(dicom_file()))
    dataset.PhotometricInterpretation = f"{ESCAPE}\r\x1b]0;x\x07"
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def archive_with_undecodable_names() -> bytes:
    """Names marked as UTF-8 that are none; one has an escape."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("\xe9a.jpg", picture("JPEG"))
    return file.getvalue().replace("\xe9a".encode(), b"\xff\xfea"[:3])


def lzma_garbage() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.jpg", picture("JPEG"))
    content = bytearray(file.getvalue())
    content[60:90] = b"\xaa" * 30
    return bytes(content)


@pytest.fixture
def odd(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names for a list, in `tmp_path`: two good images, and between them what is odd."""
    pytest.importorskip("pydicom")
    monkeypatch.chdir(tmp_path)
    good = sorted(images.rglob("*.jpg"))
    shutil.copy(good[0], "first.jpg")
    shutil.copy(good[1], "last.jpg")
    Path("escape.dcm").write_bytes(dicom_with_escapes())
    Path("names.zip").write_bytes(archive_with_undecodable_names())
    Path("garbage.zip").write_bytes(lzma_garbage())
    with zipfile.ZipFile(f"{ESCAPE}.zip", "w") as archive:
        archive.writestr(f"../{ESCAPE}.jpg", picture("JPEG"))
    with zipfile.ZipFile("members.zip", "w") as archive:
        archive.writestr(f"{ESCAPE}\x07.jpg", picture("JPEG"))
        archive.writestr(f"bad{ESCAPE}.jpg", b"\xff\xd8\xff no picture")
    return [
        *("first.jpg", "escape.dcm", "names.zip", "garbage.zip", f"{ESCAPE}.zip", "members.zip"),
        *(os.fsdecode(b"\xff\xfe.jpg"), os.fsdecode(b"in\xff/a.zip"), "last.jpg"),
    ]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_what_is_odd_in_a_list_costs_one_row_each_and_is_stored_escaped(
    kind: str, odd: list[str], tiny_workspace: Path, tmp_path: Path
) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    (tmp_path / "list.txt").write_bytes(b"\n".join(map(os.fsencode, odd)) + b"\n")
    output = tmp_path / f"out.{kind}"
    done = run("predict", "@list.txt", "-o", output, "-w", tiny_workspace)
    assert done.exit_code == 3, done.output
    assert unprintable(done.output) == []
    if kind == "csv":
        rows = list(rows_of(output).values())
    elif kind == "jsonl":
        rows = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    else:
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(output).to_pylist()
    # Two members of the sound archive, one row for everything else.
    assert len(rows) == len(odd) + 1
    assert [row["status"] for row in rows] == ["ok", *["error"] * 4, "ok", *["error"] * 3, "ok"]
    for row in rows:
        assert unprintable(row["id"]) == []
        assert unprintable(row["error"] or "") == []
    assert "\\x1b[31mX" in rows[1]["error"]


def test_odd_names_do_not_keep_a_run_from_being_resumed(
    odd: list[str], tiny_workspace: Path, tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_bytes(b"\n".join(map(os.fsencode, odd)) + b"\n")
    arguments = ("predict", "@list.txt", "--batch", 1, "-w", tiny_workspace)
    assert run(*arguments, "-o", "whole.csv").exit_code == 3
    assert run(*arguments, "-o", "cut.csv").exit_code == 3
    # As a run leaves it that was killed after each of its rows.
    whole = (tmp_path / "whole.csv").read_bytes().splitlines(keepends=True)
    (tmp_path / "never.jpg").write_bytes(b"")
    from skinlesion_cli.artifacts import prediction_file

    record = {}
    finish = prediction_file.PartialFile.finish

    def kept(self: prediction_file.PartialFile, *rest: object) -> None:
        record["run"] = (tmp_path / "cut.csv.partial.run").read_bytes()
        finish(self, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prediction_file.PartialFile, "finish", kept)
        assert run(*arguments, "-o", "cut.csv").exit_code == 3
    for rows in range(1, len(whole)):
        (tmp_path / "cut.csv").unlink()
        (tmp_path / "cut.csv.partial").write_bytes(b"".join(whole[: 1 + rows]))
        (tmp_path / "cut.csv.partial.run").write_bytes(record["run"])
        done = run(*arguments, "-o", "cut.csv", "--resume")
        assert done.exit_code == 3, done.output
        assert (tmp_path / "cut.csv").read_bytes() == b"".join(whole)


@pytest.mark.parametrize("command", ["predict", "explain", "select", "download"])
def test_messages_about_archives_are_printed_escaped(
    command: str, odd: list[str], tiny_workspace: Path, tmp_path: Path
) -> None:
    archive = tmp_path / f"{ESCAPE}.zip"
    if command == "download":
        done = run("download", "--from", archive, "-w", tmp_path / "new")
    else:
        done = run(command, archive, "-o", tmp_path / "out.csv", "-w", tiny_workspace)
    assert done.exit_code in (1, 2), done.output
    assert unprintable(done.output) == []
    assert "x1b[31mX" in done.output


def test_one_line() -> None:
    assert one_line("a \n b\t\x1b[0m \x9b \u202e \udcff \U000e0001 é 🦀") == (
        r"a b \x1b[0m \x9b \u202e \udcff \U000e0001 é 🦀"
    )
