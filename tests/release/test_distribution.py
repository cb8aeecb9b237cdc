"""The wheel and the sdist: what is in them, what is not, and what they say of themselves."""

from __future__ import annotations

import email
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

import pytest

from skinlesion_cli import __version__
from tests.support.limits import HANG_S

pytest.importorskip("build")
pytest.importorskip("hatchling")
ROOT = Path(__file__).resolve().parents[2]
KEPT = [
    ".ci",
    ".dockerignore",
    ".gitattributes",
    ".github",
    ".gitignore",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "Dockerfile",
    "LICENSE",
    "LICENSE-weights",
    "MODEL_CARD.md",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "configs",
    "constraints.txt",
    "docs",
    "examples",
    "mkdocs.yml",
    "pyproject.toml",
    "skinlesion_cli",
    "tests",
]
PICTURES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".dcm", ".bmp", ".gif", ".webp"}
# What lies about in a checkout that is worked in.
STRAYS = [
    "isic2018/ISIC_0024306.jpg",
    "patients/list.csv",
    "skinlesion-workspace/models/m/checkpoint.json",
    "skinlesion_cli/ISIC_0024306.jpg",
    "skinlesion_cli/bundled/lesion.png",
    "skinlesion_cli/data/PATIENT.JPG",
    "tests/lesion.dcm",
    "examples/images/ISIC_0024306.jpg",
    "skinlesion_cli/__pycache__/app.cpython-311.pyc",
    "tests/.pytest_cache/x",
    "runs/builtin/history.csv",
    ".hypothesis/examples/x",
    ".venv/bin/python",
    "dist/old.whl",
    "demo-output/predictions.csv",
    "predictions.csv",
]


@dataclass(frozen=True)
class Built:
    """Names of the files in both archives, without the sdist's first folder, and the wheel's metadata."""

    wheel: set[str]
    sdist: set[str]
    metadata: Message


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build from a copy of the sources into which strays were put."""
    folder = tmp_path_factory.mktemp("release")
    source = folder / "source"
    leave = shutil.ignore_patterns("__pycache__", ".pytest_cache", ".hypothesis")
    for name in KEPT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=leave)
        else:
            shutil.copy(ROOT / name, source / name)
    for name in STRAYS:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"stray")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", source]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=HANG_S)
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(folder / "dist" / f"skinlesion-{__version__}-py3-none-any.whl") as wheel:
        names = set(wheel.namelist())
        text = wheel.read(f"skinlesion-{__version__}.dist-info/METADATA").decode()
    with tarfile.open(folder / "dist" / f"skinlesion-{__version__}.tar.gz") as sdist:
        inside = {name.partition("/")[2] for name in sdist.getnames()}
    return Built(names, inside, email.message_from_string(text))


def sources(folder: str) -> set[str]:
    """Files of the checkout below a folder, caches left out."""
    found = (path for path in (ROOT / folder).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in found if "__pycache__" not in path.parts}


def test_the_wheel_is_the_package_with_its_recipes_and_licences(built: Built):
    recipes = {f"skinlesion_cli/{name}" for name in sources("configs")}
    inside = {name for name in built.wheel if ".dist-info/" not in name}
    assert inside == sources("skinlesion_cli") | recipes
    assert {
        "skinlesion_cli/configs/default.yaml",
        "skinlesion_cli/report/pages/batch.html",
        "skinlesion_cli/bundled/calibration/calibration.json",
    } <= inside
    assert (
        len([name for name in inside if re.search(r"bundled/models/.*\.weights-.*\.safetensors$", name)]) >= 1
    )
    about = {name.partition(".dist-info/")[2] for name in built.wheel - inside}
    assert about == {
        "METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "licenses/LICENSE-weights",
    }  # fmt: skip


def test_no_picture_is_in_the_wheel_and_only_drawn_ones_in_the_sdist(built: Built):
    assert [name for name in built.wheel if Path(name).suffix.lower() in PICTURES] == []
    pictures = {name for name in built.sdist if Path(name).suffix.lower() in PICTURES}
    assert {name for name in pictures if not re.match(r"examples/(images/GEN_|screenshots/)", name)} == set()
    assert len(pictures) >= 14


@pytest.mark.parametrize("stray", STRAYS)
def test_nothing_that_lies_about_is_packed(built: Built, stray: str):
    assert stray not in built.wheel | built.sdist


def test_the_sdist_can_be_tested_and_built_again(built: Built):
    assert {name.partition("/")[0] for name in built.sdist} == {*KEPT, "PKG-INFO"}
    assert {"tests/conftest.py", "examples/make_images.py", ".ci/run", "configs/default.yaml"} <= built.sdist


def test_it_says_what_it_is(built: Built):
    said = built.metadata
    assert (said["Name"], said["Version"]) == ("skinlesion", __version__)
    assert said["Requires-Python"] == ">=3.11"
    assert said["License-Expression"] == "Apache-2.0 AND CC-BY-NC-4.0"
    assert said.get_all("License-File") == ["LICENSE", "LICENSE-weights"]
    assert "Research use only" in said["Summary"]
    assert said.get_payload().startswith("# skinlesion\n")


def test_heavy_parts_stay_extras(built: Built):
    lines = built.metadata.get_all("Requires-Dist")
    base = {re.match(r"[\w.-]+", line)[0] for line in lines if "extra ==" not in line}
    assert base == {
        "accelerate", "albumentations", "filelock", "grad-cam", "httpx2", "huggingface-hub", "isal", "jinja2",
        "joblib", "matplotlib", "numpy", "onnx", "onnxruntime", "onnxscript", "opencv-python-headless",
        "packaging", "pandas", "pillow", "platformdirs", "pydantic", "pyyaml", "rich", "safetensors",
        "scikit-learn", "scipy", "simplejpeg", "timm", "torch", "torchvision", "typer",
    }  # fmt: skip


def test_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert "version" not in project
    assert project["dynamic"] == ["version"]
    held = [name for name in sources("skinlesion_cli") if name.endswith(".py") and f'"{__version__}"' in
            (ROOT / name).read_text("utf-8")]  # fmt: skip
    assert held == ["skinlesion_cli/__init__.py"]


def test_the_changes_speak_of_this_version():
    assert f"\n## {__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")
