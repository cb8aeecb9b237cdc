"""The model that comes with the package: small, whole, and as good as its card says."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from skinlesion_cli.artifacts.bundle import Bundle, bundled_model
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.taxonomy import CLASS_NAMES
from tests.support.limits import HANG_S

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "skinlesion_cli" / "bundled"


@pytest.fixture(scope="module")
def card() -> str:
    return (ROOT / "MODEL_CARD.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def told() -> Predictions:
    return Predictions.load(bundled_model().ensemble_predictions("val"))


def test_it_is_small_whole_and_in_half_precision():
    assert len(list(FOLDER.rglob("checkpoint.json"))) == 3
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 30e6
    bundle = Bundle.load(bundled_model())
    assert bundle.model_id.startswith("builtin:efficientnet_lite0-fold0+")
    for member in bundle.members:
        assert {str(t.dtype) for t in load(member.weights).values() if t.dim() > 1} == {"torch.float16"}


def test_it_holds_no_image_and_no_path():
    for path in FOLDER.rglob("*"):
        assert path.is_dir() or path.suffix in (".json", ".safetensors", ".csv", ".py", ".pyc"), path
        if path.suffix == ".json":
            assert not re.search(r'"(/|[A-Z]:\\\\)', path.read_text(encoding="utf-8")), path


def test_every_image_is_predicted_by_the_fold_that_held_out_its_lesion(told):
    assert len(told.table) == 10_015
    assert told.table["lesion_id"].nunique() == 7_470
    assert told.table.groupby("lesion_id")["fold"].nunique().max() == 1
    assert sorted(set(told.table["fold"])) == ["0", "1", "2"]


def test_the_card_has_the_figures_that_scikit_learn_finds(card, told):
    p = told.probabilities
    bacc = balanced_accuracy_score(told.labels, p.argmax(axis=1))
    assert f"argmax, 8 views, all 10,015 images | {bacc:.3f} (" in card
    auc = np.mean([roc_auc_score(told.labels == c, p[:, c]) for c in range(len(CLASS_NAMES))])
    assert f"Mean of the AUC over classes {auc:.3f} (" in card
    for index, name in enumerate(CLASS_NAMES):
        mine = told.labels == index
        recall = (p[mine].argmax(axis=1) == index).mean()
        lesions = told.table["lesion_id"][mine].nunique()
        assert f"| {name} | {mine.sum()} | {lesions} | {recall:.3f} (" in card
    assert Bundle.load(bundled_model()).sha256 in card


def test_it_is_used_where_no_model_was_begun_and_says_so(skinlesion, tmp_path):
    images = ROOT / "examples" / "images"
    done = skinlesion("predict", images, "--cam", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "model: builtin:efficientnet_lite0-fold0+" in done.stderr
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(list(images.rglob("*.jpg")))
    assert {row["model"].partition(":")[0] for row in rows} == {"builtin"}
    for row in rows:
        assert sum(float(row[f"p_{name}"]) for name in CLASS_NAMES) == pytest.approx(1.0, abs=1e-5)
        assert (tmp_path / "predictions-cam" / row["overlay"]).is_file()


def test_a_model_that_was_begun_is_not_passed_over(skinlesion, tmp_path):
    (tmp_path / "skinlesion-workspace/models/resnet50/state").mkdir(parents=True)
    done = skinlesion("predict", ROOT / "examples" / "images", cwd=tmp_path)
    assert done.returncode == 4
    assert "there is no trained network in skinlesion-workspace" in done.stderr
    assert not (tmp_path / "predictions.csv").exists()


def test_the_demo_names_files_that_are_there(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "demo.py", "shown"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert done.returncode == 0, done.stderr
    named = re.findall(r"(shown/\S+\.(?:png|html|csv))", done.stdout)
    assert {Path(name).suffix for name in named} == {".png", ".html", ".csv"}
    assert [name for name in named if not (tmp_path / name).is_file()] == []
