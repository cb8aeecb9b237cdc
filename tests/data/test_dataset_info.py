"""`skinlesion info --dataset`."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.errors import ArtifactError, ExitCode
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.report.plot_dataset import class_distribution
from skinlesion_cli.stages.download.stage import DownloadSettings, run
from skinlesion_cli.stages.info import dataset
from skinlesion_cli.stages.info.settings import InfoSettings
from tests.support import tiny_datasets
from tests.support.class_lists import ISIC2018


def make(folder: Path, **settings) -> Path:
    source = folder / "s"
    if not source.exists():
        tiny_datasets.write_official(source)
    run(DownloadSettings(workspace=folder / "w", source=source, **settings), SilentReporter())
    return folder / "w"


def test_figures(tmp_path):
    source = tiny_datasets.write_official(tmp_path / "s")
    images = source / "ISIC2018_Task3_Training_Input"
    (images / "ISIC_0000003.jpg").write_bytes(tiny_datasets.jpeg(3, (32, 20)))
    (images / "ISIC_0000004.jpg").write_bytes((images / "ISIC_0000011.jpg").read_bytes())
    result = dataset.run(InfoSettings(workspace=make(tmp_path, split="grouped")), SilentReporter())
    figures = result.figures
    assert (figures["images"], figures["lesions"]) == (28, 14)
    assert figures["class_counts"] == dict.fromkeys(ISIC2018.codes, 4)
    assert figures["images_per_lesion"] == {"2": 14}
    assert figures["lesions_by_part"] == {"train": 7, "val": 7, "test": 0}
    assert figures["image_sizes_px"] == {"64x48": 27, "32x20": 1}
    assert figures["identical_files"] == 2
    assert figures["missing_metadata"] == {"age": 14, "sex": 14, "site": 14}
    assert figures["near_duplicates"] is None
    assert figures["licence"] == "CC BY-NC 4.0"
    json.dumps(figures, allow_nan=False)


def test_near_duplicates_are_told_for_the_split_that_they_were_found_with(tmp_path):
    root = make(tmp_path, check_duplicates=True)
    found = {"pairs": 0, "across_lesions": 0, "across_parts": 0}
    assert dataset.run(InfoSettings(workspace=root), SilentReporter()).figures["near_duplicates"] == found
    make(tmp_path, seed=8)
    assert dataset.run(InfoSettings(workspace=root), SilentReporter()).figures["near_duplicates"] is None


def test_missing_and_damaged_images_are_named(tmp_path):
    root = make(tmp_path)
    (Workspace(root).images / "ISIC_0000005.jpg").unlink()
    (Workspace(root).images / "ISIC_0000006.jpg").write_text("no image")
    result = dataset.run(InfoSettings(workspace=root), SilentReporter())
    assert result.exit_code is ExitCode.ARTIFACT
    assert result.figures["unreadable_images"] == 2
    assert "ISIC_0000005.jpg" in result.warnings[0]
    assert "ISIC_0000006.jpg" in result.warnings[0]


def test_without_a_dataset(tmp_path):
    with pytest.raises(ArtifactError, match="manifest"):
        dataset.run(InfoSettings(workspace=tmp_path), SilentReporter())


def test_the_picture_is_drawn_and_the_same_each_time(tmp_path):
    root = make(tmp_path)
    dataset.run(InfoSettings(workspace=root), SilentReporter())
    first = Workspace(root).class_distribution.read_bytes()
    assert Image.open(io.BytesIO(first)).size > (600, 400)
    dataset.run(InfoSettings(workspace=root), SilentReporter())
    assert Workspace(root).class_distribution.read_bytes() == first


def test_a_picture_of_nothing_is_still_a_picture():
    nothing = {part: dict.fromkeys(ISIC2018.codes, 0) for part in ("train", "val", "test")}
    Image.open(io.BytesIO(class_distribution(nothing, "empty", ISIC2018))).verify()


def test_from_the_command_line(tmp_path, skinlesion):
    source = tiny_datasets.write_official(tmp_path / "s")
    done = skinlesion("download", "--from", source, "-w", tmp_path / "w", "--split", "kfold", "--folds", "2")
    assert done.returncode == 0, done.stderr
    assert "2 folds" in done.stdout
    shown = skinlesion("info", "--dataset", "--json", "-w", tmp_path / "w")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["figures"]["split"]["folds"] == 2
