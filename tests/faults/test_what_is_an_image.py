"""`skinlesion predict`: nothing that looks like an image is passed over in silence,
and nothing of its own is input.
"""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tests.support.command_line import contents, probabilities, rows_of, run
from tests.support.half_coded import encode, picture

pytestmark = pytest.mark.command_line

OTHER = picture(6)
HEAD = {
    "photo.jxl": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(200),
    "scan.psd": b"8BPS\0\1" + bytes(200),
    "raw.nef": encode(OTHER, "TIFF"),
    "clip.mov": b"\0\0\0\x14ftypqt  " + bytes(200),
    "lesion": b"\xff\x0a" + bytes(200),
    "shot.bin": b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + bytes(200),
    "empty.jpg": b"",
}
READ = {
    "a.jfif": encode(OTHER, "JPEG", quality=95),
    "b": encode(OTHER, "PNG"),
    "c.dat": encode(OTHER, "WEBP", lossless=True),
    "d.heic": encode(OTHER, "AVIF", quality=95),
    "e.avif": encode(OTHER, "AVIF", quality=95),
    "f.jp2": encode(OTHER, "JPEG2000"),
    "g.txt": encode(OTHER, "GIF"),
}
OTHERS = {
    "notes.txt": b"text",
    "table.csv": b"a,b\n",
    "letter.pdf": b"%PDF-1.7",
    "more.zip": b"PK\x03\x04",
    "x.bin": b"\1\2",
}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def test_images_are_told_by_their_content(tiny_workspace: Path, tmp_path: Path) -> None:
    write(tmp_path / "in", READ | HEAD | OTHERS)
    done = run("predict", tmp_path / "in", "-o", tmp_path / "o.csv", "-w", tiny_workspace, "--json")
    assert done.exit_code == 3, done.output
    rows = rows_of(tmp_path / "o.csv")
    assert set(rows) == set(READ) | set(HEAD)
    assert {name for name, row in rows.items() if row["status"] == "ok"} == set(READ)
    assert {
        rows[name]["error"].partition(":")[0] for name in HEAD if name not in ("shot.bin", "empty.jpg")
    } == {"unsupported_kind"}
    assert probabilities(rows["b"]) == probabilities(rows["c.dat"]) == probabilities(rows["f.jp2"])
    counts = json.loads(done.stdout)["figures"]["passed_over"]
    assert counts == {"txt": 1, "csv": 1, "pdf": 1, "zip archive": 1, "bin": 1}


def test_the_same_in_an_archive_and_in_a_list(tiny_workspace: Path, tmp_path: Path) -> None:
    write(tmp_path / "in", READ | HEAD)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, content in (READ | HEAD | OTHERS | {".hidden.jpg": READ["a.jfif"]}).items():
            archive.writestr(name, content)
    done = run("predict", tmp_path / "a.zip", "-o", tmp_path / "o.csv", "-w", tiny_workspace, "--json")
    assert set(rows_of(tmp_path / "o.csv")) == set(READ) | set(HEAD)
    assert json.loads(done.stdout)["figures"]["passed_over"]["hidden file or folder"] == 1
    names = [str(tmp_path / "in" / name) for name in READ | HEAD]
    (tmp_path / "list").write_text("\n".join(names))
    run("predict", f"@{tmp_path / 'list'}", "-o", tmp_path / "l.csv", "-w", tiny_workspace)
    assert set(rows_of(tmp_path / "l.csv")) == set(names)


def test_pages_of_a_tiff_are_images_and_an_animation_is_one(tiny_workspace: Path, tmp_path: Path) -> None:
    first, second = picture(), picture(7)
    write(
        tmp_path / "in",
        {
            "first.png": encode(first, "PNG"),
            "second.png": encode(second, "PNG"),
            "pages.tif": encode(picture(), "TIFF", save_all=True, append_images=[picture(7)]),
            "move.gif": encode(first, "GIF", save_all=True, append_images=[second]),
            "move.webp": encode(first, "WEBP", save_all=True, append_images=[second], lossless=True),
            "move.png": encode(first, "PNG", save_all=True, append_images=[second]),
        },
    )
    done = run("predict", tmp_path / "in", "-o", tmp_path / "o.csv", "-w", tiny_workspace)
    assert done.exit_code == 0, done.output
    rows = rows_of(tmp_path / "o.csv")
    assert set(rows) == {
        *("first.png", "second.png", "pages.tif#1", "pages.tif#2", "move.gif", "move.webp", "move.png")
    }
    assert probabilities(rows["pages.tif#1"]) == probabilities(rows["first.png"])
    assert probabilities(rows["pages.tif#2"]) == probabilities(rows["second.png"])
    assert probabilities(rows["move.webp"]) == probabilities(rows["first.png"])
    assert {name for name, row in rows.items() if "animation" in row["notes"]} == {
        "move.gif",
        "move.webp",
        "move.png",
    }


def test_a_file_called_like_a_frame_keeps_an_id_of_its_own(tiny_workspace: Path, tmp_path: Path) -> None:
    pages = encode(picture(), "TIFF", save_all=True, append_images=[OTHER])
    write(tmp_path / "in", {"p.tif": pages, "p.tif#2": encode(OTHER, "PNG")})
    run("predict", tmp_path / "in", "-o", tmp_path / "o.csv", "-w", tiny_workspace)
    assert set(rows_of(tmp_path / "o.csv")) == {"p.tif#1", "p.tif#2", "p.tif\\x232"}


def test_predicting_a_folder_into_itself_twice_gives_the_same_rows(
    tiny_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in", {f"{name}.png": encode(picture(name), "PNG") for name in range(3)})
    monkeypatch.chdir(tmp_path / "in")
    for _ in range(2):
        done = run("predict", ".", "--report", "-w", tiny_workspace)
        assert done.exit_code == 0, done.output
        rows = rows_of(Path("predictions.csv"))
        assert set(rows) == {"0.png", "1.png", "2.png"}
        before = contents(Path("predictions-cam"))
    assert len(before) == 3
    # An unfinished run leaves its rows and overlays; resumed, it ends in the same table.
    table = Path("predictions.csv").read_bytes()
    done = run("predict", ".", "--report", "-w", tiny_workspace, "-o", "again.csv")
    assert done.exit_code == 0, done.output
    assert rows_of(Path("again.csv")).keys() == rows.keys()
    assert Path("predictions.csv").read_bytes() == table


def test_hidden_files_are_skipped_and_counted(tiny_workspace: Path, tmp_path: Path) -> None:
    write(tmp_path / "in", {"a.png": encode(OTHER, "PNG"), "._a.png": b"\0\5\x16\7" + bytes(100)})
    write(tmp_path / "in" / ".ipynb_checkpoints", {"a-checkpoint.png": encode(OTHER, "PNG")})
    done = run("predict", tmp_path / "in", "-o", tmp_path / "o.csv", "-w", tiny_workspace, "--json")
    assert done.exit_code == 0, done.output
    assert set(rows_of(tmp_path / "o.csv")) == {"a.png"}
    assert json.loads(done.stdout)["figures"]["passed_over"] == {"hidden file or folder": 2}


def test_links_are_followed_on_request_and_loops_end(tiny_workspace: Path, tmp_path: Path) -> None:
    farm = write(tmp_path / "farm", {})
    store = write(tmp_path / "store", {"x.png": encode(OTHER, "PNG")})
    (farm / "a.png").symlink_to(store / "x.png")
    (farm / "all").symlink_to(store)
    (store / "back").symlink_to(farm)
    (farm / "gone.png").symlink_to(tmp_path / "nothing")
    done = run("predict", farm, "-o", tmp_path / "o.csv", "-w", tiny_workspace)
    assert {row["error"].partition(":")[0] for row in rows_of(tmp_path / "o.csv").values()} == {"link"}
    done = run("predict", farm, "-o", tmp_path / "f.csv", "-w", tiny_workspace, "--follow-links")
    assert done.exit_code == 3, done.output
    reasons = {name: row["error"].partition(":")[0] for name, row in rows_of(tmp_path / "f.csv").items()}
    assert reasons == {"a.png": "", "all/x.png": "", "all/back": "link", "gone.png": "missing"}


def test_folders_deeper_than_the_interpreter_calls_are_read(
    tiny_workspace: Path, tmp_path: Path, monkeypatch
) -> None:
    write(tmp_path / "in", {"a.png": encode(OTHER, "PNG")})
    monkeypatch.chdir(tmp_path / "in")
    try:
        for _ in range(1100):
            Path("d").mkdir()
            monkeypatch.chdir("d")
        Path("b.png").write_bytes(encode(OTHER, "PNG"))
        monkeypatch.chdir(tmp_path)
        done = run("predict", "in", "-o", tmp_path / "o.csv", "-w", tiny_workspace)
        assert done.exit_code == 0, done.output
        assert {Path(name).name for name in rows_of(tmp_path / "o.csv")} == {"a.png", "b.png"}
    finally:
        # Neither pytest nor shutil can remove it.
        subprocess.run(["rm", "-rf", tmp_path / "in"], check=True)


def test_a_limit_of_pixels_above_that_of_the_library_takes_effect(
    tiny_workspace: Path, tmp_path: Path
) -> None:
    # 13400 x 13400 is above 178,956,970; one byte a pixel deflates to little.
    Image.new("L", (13400, 13400)).save(tmp_path / "large.png")
    done = run("predict", tmp_path / "large.png", "-o", tmp_path / "o.csv", "-w", tiny_workspace)
    assert "too_large" in rows_of(tmp_path / "o.csv")[str(tmp_path / "large.png")]["error"]
    done = run(
        *("predict", tmp_path / "large.png", "-o", tmp_path / "p.csv", "-w", tiny_workspace),
        *("--max-pixels", 200_000_000),
    )
    # It is read; a black picture then has a reason of its own.
    assert rows_of(tmp_path / "p.csv")[str(tmp_path / "large.png")]["error"].startswith("blank"), done.output


@pytest.mark.parametrize("command", ["explain", "select"])
def test_other_commands_count_what_they_pass_over(command: str, tiny_workspace: Path, tmp_path: Path) -> None:
    write(tmp_path / "in", {"a.png": encode(OTHER, "PNG"), "b.dat": encode(picture(), "PNG")} | OTHERS)
    output = tmp_path / ("maps" if command == "explain" else "list.csv")
    done = run(command, tmp_path / "in", "-o", output, "-w", tiny_workspace, "--json")
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)["figures"]
    assert figures["images"] == 2
    assert figures["passed_over"] == {"txt": 1, "csv": 1, "pdf": 1, "zip archive": 1, "bin": 1}
