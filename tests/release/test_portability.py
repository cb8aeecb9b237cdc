"""What other systems do differently, as far as Linux can show it: open files, line ends, missing modules."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from skinlesion_cli.artifacts import files, prediction_file
from skinlesion_cli.artifacts.files import replace_file, sha256_file
from skinlesion_cli.data.training.cache import ImageFile, open_cache
from skinlesion_cli.progress import SilentReporter
from tests.support import windows_files
from tests.support.class_lists import TABLE
from tests.support.limits import HANG_S

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "images"
# Modules that Windows does not have.
POSIX_ONLY = {"fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}
open_files_stay = pytest.mark.skipif(not windows_files.AVAILABLE, reason="the system lists no open files")


@open_files_stay
def test_the_rule_of_windows_is_applied_to_open_and_to_mapped_files(tmp_path: Path) -> None:
    for name in ("opened", "mapped", "free"):
        np.save(tmp_path / f"{name}.npy", np.zeros(3))
    mapped = np.load(tmp_path / "mapped.npy", mmap_mode="r")
    with open(tmp_path / "opened.npy", "rb"), windows_files.open_files_stay() as refused:
        for name in ("opened", "mapped"):
            with pytest.raises(PermissionError):
                (tmp_path / f"{name}.npy").unlink()
            with pytest.raises(PermissionError):
                os.replace(tmp_path / "free.npy", tmp_path / f"{name}.npy")
        (tmp_path / "free.npy").unlink()
    assert len(refused) == 4
    assert mapped.tolist() == [0, 0, 0]


@open_files_stay
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_table_takes_its_name_after_it_was_closed(tmp_path: Path, kind: str) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    output = tmp_path / f"predictions.{kind}"
    with (
        windows_files.open_files_stay() as refused,
        prediction_file.open_partial(output, kind, TABLE, {}, resume=False, overwrite=False) as partial,
    ):
        partial.finish({"images": 0})
    # The lock is open until it is released; on Windows filelock removes it then.
    assert [Path(path).name for path in refused] == [f".predict-{output.name}.lock"]
    assert output.is_file()
    assert not list(tmp_path.glob("*.partial*"))


@open_files_stay
def test_decoded_images_take_their_name_after_they_were_closed(tmp_path: Path) -> None:
    chosen = [
        ImageFile(path.stem, path.name, sha256_file(path)) for path in sorted(EXAMPLES.glob("*.jpg"))[:3]
    ]
    with windows_files.open_files_stay() as refused:
        cache = open_cache(tmp_path, chosen, EXAMPLES, 8, SilentReporter())
    assert cache.images.shape == (3, 8, 8, 3)
    assert [path for path in refused if not path.endswith(".lock")] == []


@pytest.mark.parametrize("held", [2, 9])
def test_replacing_waits_for_a_program_that_holds_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    tries: list[int] = []
    replace = os.replace

    def busy(source: Path, target: Path) -> None:
        tries.append(1)
        if len(tries) <= held:
            raise PermissionError(13, "in use")
        replace(source, target)

    monkeypatch.setattr(files, "_PAUSES_S", (0.0, 0.0, 0.0))
    monkeypatch.setattr(files.os, "replace", busy)
    (tmp_path / "new").write_bytes(b"new")
    if held == 2:
        replace_file(tmp_path / "new", tmp_path / "old")
        assert ((tmp_path / "old").read_bytes(), len(tries)) == (b"new", 3)
    else:
        with pytest.raises(PermissionError):
            replace_file(tmp_path / "new", tmp_path / "old")
        assert len(tries) == 4


def test_git_for_windows_checks_out_the_same_bytes(tmp_path: Path) -> None:
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")
    bundled = ROOT / "skinlesion_cli" / "bundled"
    names = [
        ".gitattributes",
        ".ci/run",
        "examples/release_check.sh",
        *(
            path.relative_to(ROOT).as_posix()
            for path in bundled.rglob("*")
            if path.suffix in (".csv", ".json")
        ),
    ]
    origin = tmp_path / "origin"
    for name in names:
        (origin / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, origin / name)
    committer = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    for command in (
        ["-C", origin, "init", "--quiet"],
        ["-C", origin, "add", "--all"],
        ["-C", origin, *committer, "commit", "--quiet", "--message", "as released"],
        ["-c", "core.autocrlf=true", "clone", "--quiet", origin, tmp_path / "windows"],
    ):
        subprocess.run([git, *command], check=True, timeout=HANG_S, capture_output=True)
    assert len(names) > 10
    changed = [
        name for name in names if (tmp_path / "windows" / name).read_bytes() != (ROOT / name).read_bytes()
    ]
    assert changed == []


def test_no_module_needs_what_windows_lacks_to_be_imported() -> None:
    needs = re.compile(rf"^(?:import|from) (?:{'|'.join(POSIX_ONLY)})\b", re.MULTILINE)
    paths = [path for folder in ("skinlesion_cli", "tests") for path in (ROOT / folder).rglob("*.py")]
    assert len(paths) > 300
    needing = [path.relative_to(ROOT).as_posix() for path in paths if needs.search(path.read_text("utf-8"))]
    # A program of its own, which sets the limits of its process.
    assert needing == ["tests/fuzzing/run.py"]
