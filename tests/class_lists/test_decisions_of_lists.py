"""Calibration, evaluation and prediction with two, eight and twelve classes; judging by coarser ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from skinlesion_cli.artifacts.calibration import Calibration
from skinlesion_cli.artifacts.ensemble import Ensemble
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.decisions.settings import FitSettings, Target
from skinlesion_cli.errors import DataError, UsageError
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.result import StageResult
from skinlesion_cli.stages.calibrate import stage as calibrate
from skinlesion_cli.stages.evaluate import stage as evaluate
from skinlesion_cli.stages.predict import stage as predict
from skinlesion_cli.taxonomy import ClassList, shipped
from tests.class_lists.conftest import Made

TARGETS = {"melanoma": "MEL", "isic2019": "SCC", "clinic": "C07"}


@pytest.fixture(scope="module")
def calibrated(made: Made) -> Made:
    target = Target(TARGETS[made.classes.name], 0.5)
    calibrate.run(
        calibrate.CalibrateSettings(workspace=made.workspace.root, fit=FitSettings(targets=(target,))),
        SilentReporter(),
    )
    return made


def judged(workspace: Workspace, output: Path, **settings: object) -> StageResult:
    return evaluate.run(
        evaluate.EvaluateSettings(workspace=workspace.root, output=output, n_resamples=20, **settings),
        SilentReporter(),
    )


def test_the_calibration_decides_between_the_classes_of_the_list(calibrated: Made) -> None:
    codes, name = calibrated.classes.codes, calibrated.classes.name
    stored = Calibration.load(calibrated.workspace.calibration)
    assert stored.classes == calibrated.classes
    assert list(stored.rule.alarms) == [TARGETS[name], "malignant"]
    assert len(stored.rule.conformal_minimum) == len(stored.rule.class_offsets) == len(codes)
    assert set(stored.support["lesions_by_class"]) == set(codes)


def test_an_evaluation_has_figures_pictures_and_a_page_of_the_list(calibrated: Made, tmp_path: Path) -> None:
    result = judged(calibrated.workspace, tmp_path / "out", report=True)
    codes = calibrated.classes.codes
    assert list(result.figures["support"]["images_by_class"]) == list(codes)
    assert np.shape(result.figures["confusion_matrix"]) == (len(codes), len(codes) + 1)
    assert f"auc/{codes[-1]}" in result.figures["figures"]
    assert set(result.figures["triage"]) == {"refer", "review", "routine", "malignant_lesions_seen"}
    assert [row[0] for row in result.tables[0].rows] == list(codes)
    assert not (tmp_path / "out" / "challenge.csv").exists()
    page = (tmp_path / "out" / "report.html").read_text()
    assert all(f">{code}<" in page for code in codes)
    stored = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert stored["class_order"] == list(codes)


def test_the_official_table_is_for_isic_2018_alone(calibrated: Made, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"not about {calibrated.classes.name}"):
        judged(calibrated.workspace, tmp_path / "out", thresholded=True)


def test_results_and_their_page_have_the_classes_of_the_list(calibrated: Made, tmp_path: Path) -> None:
    result = predict.run(
        predict.PredictSettings(
            inputs=(str(calibrated.images),),
            output=tmp_path / "results.csv",
            workspace=calibrated.workspace.root,
            report=True,
            workers=1,
        ),
        SilentReporter(),
    )
    codes = calibrated.classes.codes
    table = pd.read_csv(tmp_path / "results.csv", keep_default_na=False)
    assert [name for name in table.columns if name.startswith("p_")] == [f"p_{code}" for code in codes]
    assert set(table["decision"]) <= set(codes)
    assert set(table["triage"]) <= {"refer", "review", "routine"}
    malignant = table[[f"p_{code}" for code in calibrated.classes.malignant_codes]].sum(axis=1)
    np.testing.assert_allclose(malignant, table["malignant_probability"], atol=1e-5)
    assert list(result.figures["decisions"]) == list(codes)


def test_a_model_of_the_list_is_judged_by_coarser_classes(made: Made, tmp_path: Path) -> None:
    if made.classes.name == "clinic":
        with pytest.raises(DataError, match="C00, C01, C02, C03, C04"):
            judged(made.workspace, tmp_path / "out", classes="malignancy", decision="argmax")
        return
    if made.classes.name == "melanoma":
        with pytest.raises(DataError, match="OTHER"):
            judged(made.workspace, tmp_path / "out", classes="isic2018", decision="argmax")
        return
    result = judged(made.workspace, tmp_path / "out", classes="isic2018", decision="argmax", part="val")
    stored = Predictions.load(made.workspace.ensemble_predictions("val"))
    p = stored.probabilities.astype(float)
    seven = np.c_[p[:, :3], p[:, 3] + p[:, 7], p[:, 4:7]]
    labels = np.where(stored.labels == 7, 3, stored.labels)
    right = [(seven[labels == k].argmax(axis=1) == k).mean() for k in range(7) if (labels == k).any()]
    assert result.figures["figures"]["bacc"]["value"] == pytest.approx(np.mean(right))
    assert result.figures["support"]["images_by_class"]["AKIEC"] == (labels == 3).sum()
    assert "AK + SCC of isic2019 count as AKIEC of isic2018" in result.warnings
    assert (tmp_path / "out" / "challenge.csv").exists()


def results_of_seven(folder: Path, labelled: dict[str, str]) -> Path:
    """A table as `predict` writes it, with seven classes: melanoma at 0.4, the others at 0.1 each."""
    codes = shipped("isic2018").codes
    rows = [",".join(["id", "status", *(f"p_{code}" for code in codes)])]
    rows += [",".join([identity, "ok", "0.4", *["0.1"] * 6]) for identity in labelled]
    (folder / "seven.csv").write_text("\n".join(rows) + "\n")
    truth = ["image,label", *(f"{identity},{label}" for identity, label in labelled.items())]
    (folder / "truth.csv").write_text("\n".join(truth) + "\n")
    return folder / "seven.csv"


def test_results_of_seven_classes_are_judged_as_melanoma_or_other(tmp_path: Path) -> None:
    source = results_of_seven(
        tmp_path, {"a": "melanoma", "b": "nevus", "c": "seborrheic keratosis", "d": "NV"}
    )
    result = judged(
        Workspace(tmp_path / "none"),
        tmp_path / "out",
        source=str(source),
        truth=tmp_path / "truth.csv",
        classes="melanoma",
    )
    figures = result.figures["figures"]
    assert result.figures["support"]["images_by_class"] == {"MEL": 1, "OTHER": 3}
    # The sums are 0.4 and 0.6, so that the maximum is OTHER, though melanoma was that of the seven.
    assert (figures["sensitivity/MEL"]["value"], figures["sensitivity/OTHER"]["value"]) == (0.0, 1.0)
    assert figures["brier"]["value"] == pytest.approx((2 * 0.36 + 3 * 2 * 0.16) / 4)
    assert "NV + BCC + AKIEC + BKL + DF + VASC of isic2018 count as OTHER of melanoma" in result.warnings


def test_labels_of_the_workspace_decide_what_finer_results_are_judged_by(tmp_path: Path, made: Made) -> None:
    if made.classes.name != "melanoma":
        pytest.skip("for the workspace with melanoma and other")
    source = results_of_seven(tmp_path, {"000": "", "001": "", "002": ""})
    result = judged(made.workspace, tmp_path / "out", source=str(source))
    assert result.figures["support"]["images_by_class"] == {"MEL": 1, "OTHER": 2}


def test_a_list_without_a_malignant_class_has_no_triage(made: Made, tmp_path: Path) -> None:
    """The same predictions, of the same classes with none of them malignant."""
    if made.classes.name != "clinic":
        pytest.skip("one list is enough")
    benign = ClassList("benign", tuple(replace(entry, malignant=False) for entry in made.classes.entries))
    workspace = Workspace(tmp_path / "workspace")
    ensemble = replace(Ensemble.load(made.workspace.ensemble), classes=benign, artifact=None)
    artifact = ensemble.save(workspace.ensemble)
    for part in ("val", "test"):
        stored = Predictions.load(made.workspace.ensemble_predictions(part))
        replace(stored, classes=benign, artifact=None).save(
            workspace.ensemble_predictions(part), inputs={"ensemble": artifact}
        )
    settings = calibrate.CalibrateSettings(workspace=workspace.root, fit=FitSettings(policy="none"))
    with pytest.raises(UsageError, match="no class of benign"):
        calibrate.run(calibrate.CalibrateSettings(workspace=workspace.root), SilentReporter())
    result = calibrate.run(settings, SilentReporter())
    assert any("there is no triage" in warning for warning in result.warnings)
    assert "levels" not in result.figures["triage"]
    assert Calibration.load(workspace.calibration).level_guarantees == ()
    evaluated = judged(workspace, tmp_path / "out", report=True)
    assert evaluated.figures["triage"] is None
    assert evaluated.figures["figures"]["malignant/auc"]["value"] is None
    assert not (tmp_path / "out" / "net-benefit.png").exists()
    assert "malignant BACC" not in (tmp_path / "out" / "report.html").read_text()
