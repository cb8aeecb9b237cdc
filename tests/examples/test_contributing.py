"""What CONTRIBUTING.md says how to add is added as it says, to a copy of the package, and put to use."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.limits import HANG_S

# Each starts the command many times, and every start loads torch.
pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
HOW_TOS = ("A dataset", "A backbone", "A TTA view", "A threshold policy", "A runtime")
SMALL = {
    "SKINLESION_RECIPE_EPOCHS": "1",
    "SKINLESION_RECIPE_BATCH_SIZE": "8",
    "SKINLESION_RECIPE_INPUT_SIZE_PX": "32",
    "SKINLESION_RECIPE_PROGRESSIVE_SIZES_PX": "[]",
    "SKINLESION_RECIPE_CACHE_SIZE_PX": "40",
    "SKINLESION_RECIPE_HARMONISE_PX": "null",
}


def blocks(language: str) -> dict[str, list[str]]:
    """The code blocks of CONTRIBUTING.md by the heading that they stand under."""
    found: dict[str, list[str]] = {}
    for section in re.split(r"^### ", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), flags=re.M)[1:]:
        heading, _, body = section.partition("\n")
        found[heading] = re.findall(rf"^```{language}\n(.*?)^```$", body, flags=re.M | re.S)
    return found


def apply(block: str, folder: Path) -> None:
    """Put a block where its first line says: into a new file, or above or below a line that is there."""
    first, _, body = block.partition("\n")
    if new := re.fullmatch(r"# new file (\S+)", first):
        path = folder / new[1]
        assert not path.exists(), path
        path.write_text(body, encoding="utf-8")
        return
    place = re.fullmatch(r"# (\S+), (above|below): (.+)", first)
    assert place, f"no place in {first!r}"
    path, lines = folder / place[1], (folder / place[1]).read_text(encoding="utf-8").splitlines(keepends=True)
    at = [number for number, line in enumerate(lines) if line.strip() == place[3]]
    assert len(at) == 1, f"{place[3]!r} is {len(at)} times in {place[1]}"
    # What goes above a line is a function, with the usual two empty lines after it.
    lines.insert(at[0] + (place[2] == "below"), body if place[2] == "below" else f"{body}\n\n")
    path.write_text("".join(lines), encoding="utf-8")


def run(folder: Path, *command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=os.environ | SMALL | {"PYTHONPATH": str(folder), "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )


@pytest.mark.parametrize("heading", HOW_TOS)
def test_each_is_under_15_lines(heading):
    lines = [
        line
        for block in blocks("python")[heading]
        for line in block.splitlines()
        if line.strip() and not line.startswith("# ")
    ]
    assert 0 < len(lines) < 15
    assert max(map(len, lines)) <= 110


def test_every_how_to_is_tested():
    assert tuple(blocks("python")) == HOW_TOS
    assert all(len(commands) == 1 for commands in blocks("sh").values())


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Path:
    """A copy of the package, to which one how-to after the other is applied."""
    folder = tmp_path_factory.mktemp("extended")
    ignored = shutil.ignore_patterns("__pycache__", "*.safetensors")
    shutil.copytree(ROOT / "skinlesion_cli", folder / "skinlesion_cli", ignore=ignored)
    shutil.copytree(ROOT / "configs", folder / "configs")
    return folder


@pytest.fixture(scope="module")
def used(extended, tmp_path_factory) -> Path:
    """The folder in which the page was followed from top to bottom: the blocks applied, the commands run."""
    import make_images

    folder = tmp_path_factory.mktemp("used")
    (folder / "photographs").mkdir()
    for number, row in enumerate(
        make_images.make(folder / "images", 56, seed=3, width=64, height=48, official=False)
    ):
        image = folder / "images" / f"{row['image']}.jpg"
        shutil.copy(image, folder / "photographs" / f"{row['label']}_{number:04d}.jpg")
        if number >= 7:
            image.unlink()
    for heading in HOW_TOS:
        for block in blocks("python")[heading]:
            apply(block, extended)
        for line in blocks("sh")[heading][0].splitlines():
            done = run(extended, "-m", "skinlesion_cli", *shlex.split(line)[1:], cwd=folder)
            assert done.returncode == 0, f"{heading}: {line}\n{done.stderr}"
    return folder


def artifact(folder: Path, name: str) -> dict:
    return json.loads((folder / "skinlesion-workspace" / name).read_text(encoding="utf-8"))


def test_the_dataset_is_recognised_and_read(used):
    with next((used / "skinlesion-workspace/dataset").glob("manifest*.csv")).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 56
    assert {row["source"] for row in rows} == {"prefixed"}
    assert {row["id"].split("_")[0] for row in rows if row["label"] == "BKL"} == {"BKL"}


def test_the_backbone_was_trained(used):
    checkpoint = artifact(used, "models/mobilenetv2/checkpoint.json")
    assert checkpoint["body"]["arch"] == "mobilenetv2"


def test_the_view_is_stored_averaged_and_calibrated_on(used):
    eight = ["identity", "hflip", "vflip", "rot180", "transpose", "rot90", "rot270", "antitranspose"]
    zoomed = [f"zoomed-{name}" for name in ("transpose", "rot90", "rot270", "antitranspose")]
    for name, views in (
        ("models/mobilenetv2/predictions-val.json", [*eight, "shifted", *zoomed]),
        ("ensemble/predictions-val.json", [*eight, "shifted"]),
    ):
        assert artifact(used, name)["body"]["views"] == views
    with (used / "single.csv").open(newline="") as file:
        assert {(row["forward_passes"], row["tta"]) for row in csv.DictReader(file)} == {("9", "d4-shifted")}


def test_the_view_changes_no_mode_that_was_there(used, extended):
    from skinlesion_cli.inference import tta

    program = "from skinlesion_cli.inference import tta; print(*tta.MODES['published'], *tta.MODES['d4'])"
    done = run(extended, "-c", program, cwd=used)
    assert done.stdout.split() == [*tta.MODES["published"], *tta.MODES["d4"]], done.stderr


def test_the_policy_made_the_thresholds(used, extended):
    body = artifact(used, "calibration/calibration.json")["body"]
    assert body["policy"] == "youden"
    assert set(body["rule"]["thresholds"]) == {"MEL", "BCC", "AKIEC"}
    program = (
        "import numpy as np\n"
        "from skinlesion_cli.decisions.policies.youden import find\n"
        "from skinlesion_cli.decisions.settings import FitSettings\n"
        "p = np.full((4, 7), 0.01); p[:, 0] = 0.9, 0.6, 0.5, 0.1\n"
        "from skinlesion_cli.taxonomy import shipped\n"
        "seven = shipped('isic2018')\n"
        "def mel(*y): return find(np.array(y), p, np.arange(4), FitSettings(), seven).thresholds['MEL']\n"
        "print(mel(0, 0, 1, 1) < 0.6, 0.6 - mel(0, 0, 1, 1) < 1e-9, mel(1, 1, 1, 1))\n"
    )
    done = run(extended, "-c", program, cwd=used)
    assert done.stdout.split() == ["True", "True", "1.0"], done.stderr


def test_the_runtime_says_what_torch_says(used):
    tables = []
    for name in ("double.csv", "single.csv"):
        with (used / name).open(newline="") as file:
            tables.append(list(csv.DictReader(file)))
    assert [row["id"] for row in tables[0]] == [row["id"] for row in tables[1]]
    assert len(tables[0]) == 7
    columns = [column for column in tables[0][0] if column.startswith("p_")]
    double, single = ([[float(row[c]) for c in columns] for row in table] for table in tables)
    differences = [abs(a - b) for x, y in zip(double, single, strict=True) for a, b in zip(x, y, strict=True)]
    # Float64 is no copy of float32, and no further from it than the tolerance.
    assert 0 < max(differences) < 1e-5


def test_the_registry_tests_take_them_up(used, extended, tmp_path):
    """The inversion test and the test of networks, as they stand, run on what was added."""
    for name in ("inference/test_engine.py", "training/test_backbones.py"):
        shutil.copy(ROOT / "tests" / name, tmp_path)
    chosen = "undoing and shifted or maps_pixels and mobilenetv2"
    done = run(extended, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
