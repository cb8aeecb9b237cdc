"""What a run leaves behind names no machine and no user; a full disk is told and costs no finished row."""

from __future__ import annotations

import csv
import getpass
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import room_for, run
from tests.support.limits import HANG_S

pytestmark = pytest.mark.command_line


def test_nothing_that_predict_writes_names_this_machine(
    tiny_workspace: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER", "dr-jane-doe")
    monkeypatch.setenv("LOGNAME", "dr-jane-doe")
    assert getpass.getuser() == "dr-jane-doe"
    done = run("predict", images, "-o", tmp_path / "out" / "all.csv", "--report", "-w", tiny_workspace)
    assert done.exit_code == 0, done.output
    written = [path for root in (tmp_path, tiny_workspace) for path in root.rglob("*") if path.is_file()]
    assert any(path.suffix == ".html" for path in written)
    assert any(path.suffix == ".png" for path in written)
    secrets = [str(tmp_path), str(tiny_workspace), str(images), f"{Path.home()}/", "dr-jane-doe"]
    for path in written:
        content = path.read_bytes()
        assert [secret for secret in secrets if secret.encode() in content] == [], path.name


ROOT = Path(__file__).resolve().parents[2]
# Where these are set, libraries send nothing of their own accord.
QUIET = {"CI", "DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY", "ORT_DISABLE_TELEMETRY"}


def in_new_home(home: Path, *arguments: object) -> str:
    """What an interpreter prints for a user who has never run anything, on a machine not known as CI."""
    variables = {name: value for name, value in os.environ.items() if name not in QUIET}
    variables = {name: value for name, value in variables.items() if not name.startswith("XDG_")}
    home.mkdir()
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=home.parent,
        env=variables | {"HOME": str(home), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_library_keeps_a_record_of_use_to_send(tmp_path: Path) -> None:
    image = ROOT / "examples" / "images" / "GEN_0000001.jpg"
    in_new_home(tmp_path / "home", "-m", "skinlesion_cli", "predict", image, "-o", tmp_path / "one.csv")
    assert (tmp_path / "one.csv").is_file()
    # onnxruntime writes the identity of the machine, and what it will send, to ~/.cache/Microsoft.
    assert [path.name for path in (tmp_path / "home").rglob("*") if path.is_file()] == []


def test_openvino_converts_without_its_usage_reports(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    program = "import skinlesion_cli, openvino.tools.ovc.telemetry_utils as used; print(used.tm.__name__)"
    assert in_new_home(tmp_path / "home", "-c", program).strip() == "openvino.tools.ovc.telemetry_stub"


def test_names_that_are_formulas_escapes_or_scripts_are_neutralised(
    tiny_workspace: Path, images: Path, tmp_path: Path
) -> None:
    picture = next(images.rglob("*.jpg")).read_bytes()
    folder = tmp_path / "in"
    folder.mkdir()
    for name in (
        "=1+1.jpg",
        "\x1b[31mred.jpg",
        "new\nline.jpg",
        "<script>alert(1)<!--.jpg",
        "@x.jpg",
        "-y.jpg",
    ):
        (folder / name).write_bytes(picture)
    (folder / "\x1b]0;title\x07bad.jpg").write_bytes(b"no image")
    done = run("predict", folder, "-o", tmp_path / "all.csv", "--report", "-w", tiny_workspace)
    assert done.exit_code == 3, done.output
    assert "\x1b[31m" not in done.output
    assert "\x1b]" not in done.output
    assert "\x07" not in done.output
    text = (tmp_path / "all.csv").read_bytes().decode()
    with (tmp_path / "all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7
    assert len({row["id"] for row in rows}) == 7
    assert not [row["id"] for row in rows if row["id"][0] in "=+-@\t\r"]
    assert "\x1b" not in text
    assert len(text.splitlines()) == 8
    pages = list(tmp_path.rglob("*.html"))
    assert pages
    for page in pages:
        content = page.read_text("utf-8")
        assert "<script>alert" not in content
        assert "\x1b" not in content


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_disk_full_in_predict_is_told_and_the_next_run_goes_on(
    tiny_workspace: Path, images: Path, tmp_path: Path, kind: str
) -> None:
    output, whole = tmp_path / f"all.{kind}", tmp_path / f"whole.{kind}"
    assert run("predict", images, "-o", whole, "-w", tiny_workspace).exit_code == 0
    with room_for(whole.stat().st_size - 300):
        done = run("predict", images, "-o", output, "-w", tiny_workspace)
    assert done.exit_code == 1, done.output
    assert "should not happen" not in done.output
    assert f"cannot write {output.name}" in done.output
    assert "--resume" in done.output
    assert not output.exists()
    assert os.path.exists(f"{output}.partial")
    done = run("predict", images, "-o", output, "--resume", "-w", tiny_workspace)
    assert done.exit_code == 0, done.output
    assert output.read_bytes() == whole.read_bytes()
    assert [path.name for path in tmp_path.glob("*.partial*")] == []
