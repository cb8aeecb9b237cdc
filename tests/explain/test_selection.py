"""Which images to label next, and how their labels come back."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.decisions import active_learning as selection
from skinlesion_cli.errors import DataError, UsageError
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages import select as stage
from skinlesion_cli.stages.download import append
from skinlesion_cli.stages.download import stage as download
from tests.support.tiny_models import make_images, make_workspace

PROBABILITIES = np.array([[0.5, 0.5, 0, 0], [1, 0, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.7, 0.2, 0.1, 0]])


def test_margin_and_entropy() -> None:
    np.testing.assert_allclose(selection.margin_uncertainty(PROBABILITIES), [1.0, 0.0, 1.0, 0.5])
    # ln 2 / ln 4 = 0.5; 0; 1; -(0.7 ln 0.7 + 0.2 ln 0.2 + 0.1 ln 0.1) / ln 4
    np.testing.assert_allclose(selection.entropy(PROBABILITIES), [0.5, 0.0, 1.0, 0.578390], atol=1e-6)


def test_disagreement_is_not_uncertainty() -> None:
    same = np.array([[[0.5, 0.5, 0, 0]], [[0.5, 0.5, 0, 0]]])
    opposite = np.array([[[1, 0, 0, 0]], [[0, 1, 0, 0]]])
    np.testing.assert_allclose(selection.disagreement(same), [0.0], atol=1e-12)
    np.testing.assert_allclose(selection.disagreement(opposite), [0.5])
    np.testing.assert_allclose(selection.disagreement(opposite[:1]), [0.0])


def test_farthest_first_leaves_twins_to_the_end() -> None:
    features = np.array([[1.0, 0.0], [0.99, 0.01], [0.0, 1.0], [-1.0, 0.0]])
    assert selection.farthest_first(features, 3, 0).tolist() == [0, 3, 2]
    assert selection.farthest_first(features, 9, 0).tolist() == [0, 3, 2, 1]


def test_strategies() -> None:
    scores = {name: np.array([0.1, 0.9, 0.8, 0.7]) for name in ("margin", "entropy", "disagreement")}
    features = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [-1.0, 0.0]])
    assert selection.select("entropy", 2, scores, features).tolist() == [1, 2]
    # The second most uncertain looks just like the first.
    assert selection.select("mixed", 2, scores, features)[0] == 1
    assert selection.select("mixed", 2, scores, features)[1] in (0, 3)
    with pytest.raises(UsageError, match="no strategy named 'luck'"):
        selection.select("luck", 2, scores, features)


def test_select_writes_the_list(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "ws")
    images = make_images(tmp_path / "images", 6)
    (images / "a" / "=cmd.jpg").write_bytes((images / "a" / "image 000.jpg").read_bytes())
    config = stage.SelectSettings(
        workspace=workspace,
        inputs=[str(images)],
        output=tmp_path / "list.csv",
        count=4,
        strategy="disagreement",
    )
    result = stage.run(config, SilentReporter())
    with (tmp_path / "list.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    assert {row["label"] for row in rows} == {""}
    found = [float(row["disagreement"]) for row in rows]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0
    assert result.figures["disagreement_of"] == "networks"
    assert result.figures["images"] == 7
    # The images are not beside the list: their folder is part of the command that reads it. There is no
    # dataset yet to which they could be appended.
    command = f"skinlesion download --from {tmp_path / 'list.csv'} --images {images}"
    assert f"`{command}`" in result.headline[1]


def test_select_takes_the_model_that_is_named(dataset: Path, tmp_path: Path) -> None:
    model = make_workspace(tmp_path / "model")
    images = make_images(tmp_path / "images", 3)
    config = stage.SelectSettings(
        workspace=dataset, inputs=[str(images)], output=tmp_path / "list.csv", count=2, model=str(model)
    )
    result = stage.run(config, SilentReporter())
    assert result.figures["selected"] == 2
    assert result.figures["model_sha256"] == Bundle.load(Workspace(model)).sha256
    assert (
        f"`skinlesion download --from {tmp_path / 'list.csv'} --append --images {images}`"
        in result.headline[1]
    )


@pytest.fixture
def dataset(generated: Path, tmp_path: Path) -> Path:
    config = download.DownloadSettings(workspace=tmp_path / "data", source=generated, split="grouped")
    download.run(config, SilentReporter())
    return tmp_path / "data"


def reviewed(folder: Path, rows: list[tuple[str, str, str]]) -> Path:
    folder.mkdir(exist_ok=True)
    for index, (name, _, _) in enumerate(rows):
        Image.fromarray(np.full((64, 64, 3), 40 + index, np.uint8)).save(folder / name.lstrip("'"))
    with (folder / "reviewed.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(
            ("image", "label", "review", "decision", "malignant_probability", "note", "model_sha256")
        )
        table.writerows((name, label, how, "NV", "0.1", "a note", "ab") for name, label, how in rows)
    return folder / "reviewed.csv"


def test_labels_from_the_page_go_to_training(dataset: Path, tmp_path: Path) -> None:
    workspace = Workspace(dataset)
    before = Manifest.load(workspace.manifest)
    old = Split.load(workspace.split, before)
    path = reviewed(
        tmp_path / "new",
        [("n1.png", "NV", "accept"), ("'=n2.png", "MEL", "disagree"), ("n3.png", "", "disagree")],
    )
    result = append.run(download.DownloadSettings(workspace=dataset, source=path), SilentReporter())
    after = Manifest.load(workspace.manifest)
    new = Split.load(workspace.split, after)
    assert len(after.table) == len(before.table) + 2
    added = after.table[~after.table["id"].isin(before.table["id"])]
    assert sorted(added["label"]) == ["MEL", "NV"]
    assert new.ids("val") == old.ids("val")
    assert new.ids("test") == old.ids("test")
    assert set(new.ids("train")) - set(old.ids("train")) == set(added["id"])
    assert "1 of 3 rows have no label" in " ".join(result.warnings)
    assert all((workspace.images / file).is_file() for file in added["file"])
    # A second time there is nothing new, and nothing changes.
    with pytest.raises(DataError, match="no image that the dataset lacks"):
        append.run(download.DownloadSettings(workspace=dataset, source=path), SilentReporter())


def test_a_contradicting_label_is_refused(dataset: Path, tmp_path: Path) -> None:
    path = reviewed(tmp_path / "new", [("n1.png", "NV", "accept")])
    append.run(download.DownloadSettings(workspace=dataset, source=path), SilentReporter())
    other = reviewed(tmp_path / "other", [("x.png", "MEL", "disagree")])
    with pytest.raises(DataError, match=r"another label: .*NV there, MEL here"):
        append.run(download.DownloadSettings(workspace=dataset, source=other), SilentReporter())
