"""Nothing that is handed in is executed, and no lock is followed out of its folder."""

from __future__ import annotations

import ast
import os
import pickle
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from skinlesion_cli.artifacts.files import atomic_write, exclusive
from skinlesion_cli.cli.app import app
from skinlesion_cli.errors import SkinLesionError

PACKAGE = Path(__file__).resolve().parents[2] / "skinlesion_cli"
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}


def unsafe_calls(source: str) -> list[str]:
    """Calls and imports in a Python source by which content of a file could run code."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in UNSAFE_MODULES]
        if isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            if (node.module or "").split(".")[0] in UNSAFE_MODULES or (
                (node.module or "").split(".")[0] in {"joblib", "torch", "yaml"} and "load" in names
            ):
                found.append(f"from {node.module}")
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if (
            name in {"eval", "exec", "joblib.load", "os.system", "yaml.load", "yaml.unsafe_load"}
            or name.endswith("read_pickle")
            or (name in {"torch.load", "jit.load"} and keywords.get("weights_only") != "True")
            or keywords.get("allow_pickle", "False") != "False"
            or keywords.get("shell", "False") != "False"
        ):
            found.append(f"{name} in line {node.lineno}")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, yaml.Loader)",
        "pd.read_pickle(path)",
        "subprocess.run(line, shell=True)",
    ],
)
def test_the_search_for_unsafe_calls_finds_them(source: str) -> None:
    assert unsafe_calls(source)


def test_no_command_reaches_a_pickle() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 100
    assert {file.name: calls for file in files if (calls := unsafe_calls(file.read_text("utf-8")))} == {}


class _Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


COMMANDS = {
    "download, list": ["download", "--from", "{}", "-w", "new"],
    "predict, image": ["predict", "{}", "-o", "out.csv", "-w", "{ws}"],
    "predict, list": ["predict", "@{}", "-o", "out.csv", "-w", "{ws}"],
    "explain, image": ["explain", "{}", "-o", "maps", "-w", "{ws}"],
    "merge": ["merge", "{}", "-o", "all.csv"],
    "train, weights": ["train", "--arch", "tiny", "--weights", "{}", "-w", "{ws}"],
    "train, recipe": ["train", "--arch", "tiny", "--recipe", "{}", "-w", "{ws}"],
    "ensemble": ["ensemble", "--predictions", "{}", "--truth", "{}", "-w", "{ws}"],
    "calibrate": ["calibrate", "--policy-file", "{}", "-w", "{ws}"],
    "evaluate": ["evaluate", "--source", "{}", "--truth", "{}", "-w", "{ws}"],
    "bench": ["bench", "{}", "--seconds", "0.1", "-w", "{ws}"],
}
SUFFIXES = (".json", ".safetensors", ".pt", ".csv", ".yaml", ".jpg", ".zip")


@pytest.mark.command_line
@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS.keys())
def test_pickle_handed_in_is_refused_and_nothing_executed(
    arguments: list[str], tiny_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mark = tmp_path / "executed"
    bomb = pickle.dumps(_Bomb(mark))
    for suffix in SUFFIXES:
        path = tmp_path / f"bomb{suffix}"
        path.write_bytes(bomb)
        filled = [
            argument.replace("{}", str(path)).replace("{ws}", str(tiny_workspace)) for argument in arguments
        ]
        done = CliRunner().invoke(app, filled)
        assert done.exit_code in (1, 2, 3, 4), (suffix, done.exit_code, done.output, done.exception)
        assert "Traceback" not in done.output, suffix
        assert "should not happen" not in done.output, (suffix, done.output)
        assert isinstance(done.exception, SystemExit), (suffix, done.exception)
        assert not mark.exists(), f"{suffix} was executed"
    # The trap itself works.
    pickle.loads(bomb)
    assert mark.exists()


@pytest.mark.command_line
@pytest.mark.parametrize("artifact", ["ensemble/ensemble.json", "calibration/calibration.json"])
def test_pickle_in_the_place_of_an_artifact_is_refused(
    artifact: str, tiny_workspace: Path, tmp_path: Path, images: Path
) -> None:
    import shutil

    workspace = tmp_path / "ws"
    shutil.copytree(tiny_workspace, workspace)
    assert (workspace / artifact).is_file()
    mark = tmp_path / "executed"
    (workspace / artifact).write_bytes(pickle.dumps(_Bomb(mark)))
    output = tmp_path / "out.csv"
    done = CliRunner().invoke(app, ["predict", str(images), "-o", str(output), "-w", str(workspace)])
    assert done.exit_code == 4, done.output
    assert Path(artifact).name in done.output
    assert not mark.exists()
    assert not output.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_at_the_place_of_a_lock_is_not_followed(tmp_path: Path) -> None:
    folder, precious = tmp_path / "ws", tmp_path / "precious.txt"
    folder.mkdir()
    precious.write_text("keep")
    (folder / ".training.lock").symlink_to(precious)
    with pytest.raises(SkinLesionError, match="lock"), exclusive(folder, "training"):
        pytest.fail("the lock was taken through a link")
    assert precious.read_text() == "keep"


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_dangling_link_at_the_place_of_a_lock_makes_no_file(tmp_path: Path) -> None:
    folder, outside = tmp_path / "ws", tmp_path / "outside"
    folder.mkdir()
    (folder / ".training.lock").symlink_to(outside)
    with pytest.raises(SkinLesionError, match="lock"), exclusive(folder, "training"):
        pytest.fail("the lock was taken through a link")
    assert not outside.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
@pytest.mark.parametrize("place", [".training.holder", "artifact.json"])
def test_a_link_at_the_place_of_a_file_is_replaced_not_written_through(tmp_path: Path, place: str) -> None:
    folder, precious = tmp_path / "ws", tmp_path / "precious.txt"
    folder.mkdir()
    precious.write_text("keep")
    (folder / place).symlink_to(precious)
    with exclusive(folder, "training"):
        atomic_write(folder / "artifact.json", b"{}")
    assert precious.read_text() == "keep"
    assert (folder / "artifact.json").read_bytes() == b"{}"
    assert not (folder / "artifact.json").is_symlink()
