"""The study of travel: what is held out, what is away, and means of several networks."""

from __future__ import annotations

import argparse
from pathlib import Path

import make_images
import numpy as np
import pandas as pd
import pytest
import travel_study as study

from skinlesion_cli.artifacts.files import sha256_file
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.reading.images import read_image
from tests.support.class_lists import ISIC2018
from tests.support.command_line import run


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 lesions of seven classes; from elsewhere, those of 90 others that have one of three classes."""
    folder = tmp_path_factory.mktemp("sources")
    make_images.make(folder / "home", 120, seed=1, width=40, height=30, official=True)
    make_images.make(folder / "all", 90, seed=2, width=40, height=30, official=True)
    (truth,) = (folder / "all").rglob("*GroundTruth*.csv")
    labels = pd.read_csv(truth).set_index("image").idxmax(axis=1)
    shared = labels[labels.isin(["MEL", "NV", "BKL"])]
    # Ids are paths where a table names files in a folder.
    (folder / "away" / "images").mkdir(parents=True)
    for identity in shared.index:
        (image,) = (folder / "all").rglob(f"{identity}.*")
        image.rename(folder / "away" / "images" / f"away-{image.name}")
    shared.index = "images/away-" + shared.index
    shared.rename_axis("image").rename("label").to_csv(folder / "away" / "labels.csv")
    workspace = ("-w", folder / "ws")
    download = (
        "download",
        "--from",
        folder / "home",
        "--split",
        "kfold",
        "--folds",
        3,
        "--source-name",
        "home",
    )
    assert run(*download, *workspace).exit_code == 0
    done = run("download", "--from", folder / "away", "--append", "--source-name", "away", *workspace)
    assert done.exit_code == 0, done.output
    return folder / "ws"


def dataset(
    workspace: Path, folder: Path, home: str, away: str, most: int | None = None, *, both: bool = False
) -> pd.DataFrame:
    options = argparse.Namespace(
        workspace=workspace, folder=folder, home=home, away=away, away_images=most, both=both
    )
    made = study._dataset(options)
    manifest = Manifest.load(made / "manifest.json")
    rows = Split.load(made / "split.json", manifest).table
    known = manifest.rows(rows["id"].tolist())
    return rows.assign(source=known["source"].to_numpy(), label=known["label"].to_numpy())


def test_the_other_source_is_judged_and_never_trained_on(both: Path, tmp_path: Path) -> None:
    folds = Split.load(Workspace(both).split, Manifest.load(Workspace(both).manifest)).table
    fold_of = dict(zip(folds["id"], folds["fold"], strict=True))
    rows = dataset(both, tmp_path, "home", "away")
    assert set(rows["source"][rows["part"] == "test"]) == {"away"}
    assert set(rows["source"][rows["part"] != "test"]) == {"home"}
    held_out = rows[rows["part"] == "val"]["id"].map(fold_of)
    assert set(held_out) == {"0"}
    assert set(rows[rows["part"] == "train"]["id"].map(fold_of)) == {"1", "2"}
    assert len(rows) == len(folds)


def test_classes_that_home_does_not_have_are_not_judged(both: Path, tmp_path: Path) -> None:
    rows = dataset(both, tmp_path, "away", "home", most=20)
    judged = rows[rows["part"] == "test"]
    assert set(judged["source"]) == {"home"}
    assert set(judged["label"]) <= {"MEL", "NV", "BKL"}
    assert len(judged) == 20


def test_a_network_of_both_sources_is_judged_on_fold_0_of_each(both: Path, tmp_path: Path) -> None:
    folds = Split.load(Workspace(both).split, Manifest.load(Workspace(both).manifest)).table
    fold_of = dict(zip(folds["id"], folds["fold"], strict=True))
    rows = dataset(both, tmp_path, "home", "away", both=True)
    assert len(rows) == len(folds)
    assert set(rows["source"][rows["part"] == "val"]) == {"home"}
    assert set(rows["source"][rows["part"] == "test"]) == {"away"}
    assert set(rows["source"][rows["part"] == "train"]) == {"home", "away"}
    assert set(rows[rows["part"] != "train"]["id"].map(fold_of)) == {"0"}
    assert set(rows[rows["part"] == "train"]["id"].map(fold_of)) == {"1", "2"}


def test_images_in_white_light_have_no_cast_and_a_manifest_that_reads_them(
    both: Path, tmp_path: Path
) -> None:
    options = argparse.Namespace(
        workspace=both, folder=tmp_path, home="home", away="away", away_images=None, both=False
    )
    made = study._dataset(options, white=True)
    former, manifest = Manifest.load(Workspace(both).manifest), Manifest.load(made / "manifest.json")
    assert manifest.table["label"].tolist() == former.table["label"].tolist()
    Split.load(made / "split.json", manifest)
    row = manifest.table.iloc[0]
    assert sha256_file(made / "images" / row["file"]) == row["sha256"]
    image = read_image((made / "images" / row["file"]).read_bytes()).astype(float)
    light = (image**6).mean(axis=(0, 1)) ** (1 / 6)
    assert light.max() / light.min() == pytest.approx(1.0, abs=0.02)
    before = read_image((Workspace(both).images / former.table.iloc[0]["file"]).read_bytes()).astype(float)
    light_before = (before**6).mean(axis=(0, 1)) ** (1 / 6)
    assert light_before.max() / light_before.min() > 1.1


def stored(probabilities: list[list[float]]) -> Predictions:
    table = pd.DataFrame(
        {"id": ["a", "b", "c", "d"], "lesion_id": ["1", "1", "", "2"], "label": ["MEL", "NV", "MEL", "NV"]}
    ).assign(fold="")
    views = np.zeros((4, 4, 7), np.float32)
    views[:, :, :2] = np.array(probabilities, np.float32)[:, None]
    names = study.MODES["flips"]
    return Predictions(table, views, names, source="efficientnet_lite0", part="val", classes=ISIC2018)


def judged(*members: Predictions, share: tuple[float, ...] = (0.5, 0.5, 0, 0, 0, 0, 0)) -> list[float]:
    probabilities = study._mean([*members], "flips")
    return [float(values[0]) for values in study._resampled(members[0], probabilities, np.array(share))]


def test_a_mean_of_networks_is_judged_as_one() -> None:
    one = stored([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]])
    other = stored([[0.9, 0.1], [0.4, 0.6], [0.9, 0.1], [0.3, 0.7]])
    # One melanoma of two is missed: (1/2 + 1) / 2; it has the lowest value of all: 2 of 4 pairs are in order.
    assert judged(one) == [pytest.approx(0.75), pytest.approx(0.5)]
    # Together it has 0.55.
    assert judged(one, other) == [1.0, 1.0]


def test_a_class_is_decided_relative_to_its_share_at_home() -> None:
    one = stored([[0.9, 0.1], [0.05, 0.95], [0.2, 0.8], [0.3, 0.7]])
    assert judged(one) == [pytest.approx(0.75), pytest.approx(0.75)]
    # Where a quarter of the images are melanomas, 0.3 is much (0.3 / 0.25 > 0.7 / 0.75), and 0.2 is not.
    assert judged(one, share=(0.25, 0.75, 0, 0, 0, 0, 0)) == [pytest.approx(0.5), pytest.approx(0.75)]


def test_calibration_undoes_the_balance_of_the_training() -> None:
    # Of 100 lesions at home 10 are melanomas. 18 are taken for melanomas, of which 9 are, and of the other 82
    # one is. A network that was trained for equally frequent classes says 0.9 and 0.1.
    labels = np.where(np.arange(100) % 10 == 0, "MEL", "NV")
    taken = (labels == "MEL") ^ (np.arange(100) < 10)
    said = np.full((100, 7), 1e-9)
    said[:, 0], said[:, 1] = np.where(taken, 0.9, 0.1), np.where(taken, 0.1, 0.9)
    table = pd.DataFrame({"id": [f"i{n}" for n in range(100)], "label": labels, "fold": ""})
    table = table.assign(lesion_id=table["id"])
    views = np.repeat(said[:, None].astype(np.float32), 4, axis=1)
    home = Predictions(
        table, views, study.MODES["flips"], source="efficientnet_lite0", part="val", classes=ISIC2018
    )
    at_home, elsewhere = study.calibrated(home, said, home, said[:2])
    assert taken[:2].tolist() == [False, True]
    assert elsewhere[:, 0].tolist() == [pytest.approx(1 / 82, abs=0.01), pytest.approx(0.5, abs=0.03)]
    assert at_home[:, 0].mean() == pytest.approx(0.1, abs=0.02)
