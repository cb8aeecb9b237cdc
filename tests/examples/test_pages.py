"""Every command block of README and docs/ is run as it stands, or says above it why not.

The commands run in this process, one page after the other in a folder of its own, on drawn images. The
networks that they name, and the bundled model, are replaced by tiny ones with random weights, and a training
is one epoch of small images. The tutorial uses the bundled model itself.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.models import backbones
from tests.support.command_line import run
from tests.support.limits import HANG_S

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
# Uses the bundled model itself, whose answer `doctor` knows.
WITH_BUNDLED = ("tutorial.md",)
BUNDLED = ROOT / "skinlesion_cli" / "bundled" / "models"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SMALL = {
    "SKINLESION_RECIPE_EPOCHS": "1",
    "SKINLESION_RECIPE_BATCH_SIZE": "16",
    "SKINLESION_RECIPE_INPUT_SIZE_PX": "32",
    "SKINLESION_RECIPE_CACHE_SIZE_PX": "32",
    "SKINLESION_RECIPE_PROGRESSIVE_SIZES_PX": "[]",
    "SKINLESION_RECIPE_HARMONISE_PX": "null",
}
_BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>.+?) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """`reason`: why it is not run; empty if it is."""

    language: str
    code: str
    reason: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    return [Block(m["language"], m["code"], m["reason"] or "") for m in _BLOCK.finditer(text)]


RUN = [page for page in PAGES if any(not block.reason for block in blocks(page))]


def test_blocks_are_shell_or_python_and_most_are_run() -> None:
    every = [block for page in PAGES for block in blocks(page)]
    assert {block.language for block in every} == {"sh", "python"}
    fences = sum(page.read_text("utf-8").count("\n```") for page in PAGES)
    assert fences == 2 * len(every)
    assert len(RUN) >= 8
    reasons = [block.reason for block in every if block.reason]
    assert len(reasons) <= len(every) / 2
    assert [reason for reason in reasons if len(reason.split()) < 3] == []
    assert [block for block in every if block.reason and block.language == "python"] == []


@pytest.fixture(scope="module")
def isic2018(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """340 images, so that 60 % are enough for a quality gate."""
    import make_images

    folder = tmp_path_factory.mktemp("isic2018")
    make_images.make(folder, 340, seed=1, width=64, height=48, official=True)
    return folder


@pytest.fixture
def folder(
    isic2018: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Path:
    """What the pages speak of: new images, ISIC 2018, labelled images of a clinic, a DICOM study."""
    import make_images

    photographs = sorted((isic2018 / "ISIC2018_Task3_Training_Input").glob("*.jpg"))
    shutil.copytree(isic2018, tmp_path / "isic2018")
    rows = make_images.make(tmp_path / "clinic", 42, seed=9, width=64, height=48, official=False)
    lines = [f"{row['image']}.jpg,{row['label']},{row['lesion_id']}" for row in rows]
    table = "\n".join(["image,label,lesion_id", *lines]) + "\n"
    (tmp_path / "clinic" / "labels.csv").write_text(table)
    for row in rows:
        shutil.copy(tmp_path / "clinic" / f"{row['image']}.jpg", tmp_path)
    (tmp_path / "labels.csv").write_text(table)
    (tmp_path / "held-out" / "images").mkdir(parents=True)
    for line in lines[:8]:
        shutil.copy(tmp_path / "clinic" / line.partition(",")[0], tmp_path / "held-out" / "images")
    (tmp_path / "held-out" / "labels.csv").write_text("\n".join(["image,label,lesion_id", *lines[:8]]) + "\n")
    for name, source in zip(("images/a.jpg", "images/b.jpg", "study/c.jpg"), photographs, strict=False):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(source, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for name, value in SMALL.items():
        monkeypatch.setenv(name, value)
    tiny = backbones.BACKBONES["tiny"]
    if request.getfixturevalue("page").name not in WITH_BUNDLED:
        monkeypatch.setattr("skinlesion_cli.artifacts.bundle._package_folder", lambda: Workspace(tiny_model))
    bundled = {
        json.loads(path.read_text("utf-8"))["body"]["arch"] for path in BUNDLED.glob("*/checkpoint.json")
    }
    for name in list(backbones.BACKBONES):
        if name not in bundled:
            monkeypatch.setitem(backbones.BACKBONES, name, replace(tiny, name=name))
    monkeypatch.setattr("skinlesion_cli.stages.train.fitting.initialise", lambda *_: "none (random)")
    monkeypatch.setattr("skinlesion_cli.stages.train.fitting.default_workers", lambda: 0)
    return tmp_path


def run_line(line: str, folder: Path) -> None:
    """One line of a shell block: a command of skinlesion, or a script of the checkout."""
    for words in _commands(line):
        if words[0] == "skinlesion":
            done = run(*words[1:])
            assert done.exit_code == 0, f"{line}\n{done.output}"
        else:
            assert words[0] == "python", line
            command = [sys.executable, ROOT / words[1], *words[2:]]
            subprocess.run(command, cwd=folder, check=True, timeout=HANG_S, capture_output=True)


def _commands(line: str) -> list[list[str]]:
    commands: list[list[str]] = [[]]
    for word in shlex.split(line, comments=True):
        if word == "&&":
            commands.append([])
        else:
            commands[-1].append(word)
    return [words for words in commands if words]


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_of_a_page_work_in_their_order(page: Path, folder: Path) -> None:
    for block in blocks(page):
        if block.reason:
            continue
        if block.language == "python":
            exec(compile(block.code, str(page), "exec"), {"__name__": "page"})
            continue
        for line in block.code.replace("\\\n", " ").splitlines():
            run_line(line, folder)
