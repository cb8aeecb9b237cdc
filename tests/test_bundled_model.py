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
from skinlesion_cli.artifacts.calibration import Calibration
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.decisions.fit import CrossFitted, cross_fit
from skinlesion_cli.decisions.settings import FitSettings
from tests.support.class_lists import ISIC2018
from tests.support.limits import HANG_S

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "skinlesion_cli" / "bundled"


@pytest.fixture(scope="module")
def card() -> str:
    return (ROOT / "MODEL_CARD.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def stored_predictions() -> Predictions:
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
        assert path.is_dir() or path.suffix in (".json", ".safetensors", ".onnx", ".csv", ".py", ".pyc"), path
        if path.suffix == ".json":
            assert not re.search(r'"(/|[A-Z]:\\\\)', path.read_text(encoding="utf-8")), path


def test_every_image_is_predicted_by_the_fold_that_held_out_its_lesion(stored_predictions):
    assert len(stored_predictions.table) == 12_161
    assert stored_predictions.table["lesion_id"].nunique() == 9_603
    assert stored_predictions.table.groupby("lesion_id")["fold"].nunique().max() == 1
    assert sorted(set(stored_predictions.table["fold"])) == ["0", "1", "2"]


def test_the_card_has_the_figures_that_scikit_learn_finds(card, stored_predictions):
    p = stored_predictions.probabilities
    bacc = balanced_accuracy_score(stored_predictions.labels, p.argmax(axis=1))
    assert f"argmax, 8 views, all 12,161 images | {bacc:.3f} (" in card
    auc = np.mean([roc_auc_score(stored_predictions.labels == c, p[:, c]) for c in range(7)])
    assert f"Mean of the AUC over classes {auc:.3f} (" in card
    for index, name in enumerate(ISIC2018.codes):
        mine = stored_predictions.labels == index
        recall = (p[mine].argmax(axis=1) == index).mean()
        lesions = stored_predictions.table["lesion_id"][mine].nunique()
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
        assert sum(float(row[f"p_{name}"]) for name in ISIC2018.codes) == pytest.approx(1.0, abs=1e-5)
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


@pytest.fixture(scope="module")
def cross_fitted(stored_predictions: Predictions) -> tuple[Calibration, CrossFitted, np.ndarray]:
    """What rules that never saw an image's lesion say of it, on what prediction would decide on."""
    calibration = Calibration.load(bundled_model().calibration)
    averaged = calibration.averaged(stored_predictions)
    unseen = cross_fit(
        stored_predictions.labels, averaged, stored_predictions.lesion_ids, FitSettings(), ISIC2018
    )
    return calibration, unseen, averaged


def test_its_probabilities_mean_what_they_say(stored_predictions, cross_fitted):
    _, unseen, _ = cross_fitted
    labels, p = stored_predictions.labels, unseen.probabilities.astype(float)
    for index, name in enumerate(ISIC2018.codes):
        assert p[:, index].mean() == pytest.approx((labels == index).mean(), rel=0.10), name
    malignant = np.isin(labels, [0, 2, 3])
    risk = p[:, [0, 2, 3]].sum(axis=1)
    assert risk.mean() == pytest.approx(malignant.mean(), rel=0.02)
    # In every tenth of the images by risk, within 0.03 of what was observed.
    for rows in np.array_split(np.argsort(risk), 10):
        assert risk[rows].mean() == pytest.approx(malignant[rows].mean(), abs=0.03)


def test_its_class_is_at_least_as_balanced_as_the_argmax(stored_predictions, cross_fitted):
    calibration, unseen, averaged = cross_fitted
    labels = stored_predictions.labels
    gain = balanced_accuracy_score(labels, unseen.decided) - balanced_accuracy_score(
        labels, averaged.argmax(axis=1)
    )
    assert gain >= 0
    stored = calibration.support["bacc_gain"]
    assert stored["value"] == pytest.approx(gain, abs=1e-6)


def test_its_triage_ranks_by_malignant_probability(stored_predictions, cross_fitted):
    calibration, unseen, _ = cross_fitted
    risk = unseen.probabilities[:, [0, 2, 3]].astype(float).sum(axis=1)
    malignant = np.isin(stored_predictions.labels, [0, 2, 3])
    highest = np.argsort(-risk)[:1000]
    assert (unseen.triage[highest] == "refer").all()
    shares = [malignant[unseen.triage == level].mean() for level in ("refer", "review", "routine")]
    assert shares[0] >= 0.70
    assert shares[2] <= 0.01
    assert shares == sorted(shares, reverse=True)
    n = len(risk)
    for threshold in np.arange(0.02, 0.501, 0.01):
        odds = threshold / (1 - threshold)
        plain = risk > threshold
        acted = (unseen.triage == "refer") | ((unseen.triage == "review") & plain)
        benefit = [((a & malignant).sum() - odds * (a & ~malignant).sum()) / n for a in (plain, acted)]
        assert benefit[0] - benefit[1] <= 0.005, threshold
    for level in calibration.level_guarantees:
        assert level["granted"]
