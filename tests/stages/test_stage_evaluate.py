"""Evaluation: never on what was fitted, with subgroups and lesions also in training, the official table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from skinlesion_cli.artifacts.bundle import Bundle, bundled_model
from skinlesion_cli.artifacts.evaluation import Evaluation
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.policy import load_policy
from skinlesion_cli.decisions.settings import FitSettings
from skinlesion_cli.decisions.statistics import metrics
from skinlesion_cli.errors import ArtifactError, DataError, UsageError
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages.calibrate import stage as calibrate
from skinlesion_cli.stages.ensemble import stage as ensemble
from skinlesion_cli.stages.evaluate import stage as evaluate
from skinlesion_cli.stages.info import stage as info
from tests.support import made_workspace
from tests.support.class_lists import ISIC2018


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    workspace = made_workspace.make(tmp_path_factory.mktemp("evaluate"), n_lesions=400)
    ensemble.run(ensemble.EnsembleSettings(workspace=workspace.root), SilentReporter())
    calibrate.run(calibrate.CalibrateSettings(workspace=workspace.root), SilentReporter())
    return workspace


def run(workspace: Workspace, **settings):
    config = evaluate.EvaluateSettings(workspace=workspace.root, **{"n_resamples": 40, **settings})
    return evaluate.run(config, SilentReporter())


def official(folder: Path) -> tuple[list[str], np.ndarray]:
    table = pd.read_csv(folder / "challenge.csv", dtype={"image": str})
    assert table.columns.tolist() == ["image", *ISIC2018.codes]
    return table["image"].tolist(), table[list(ISIC2018.codes)].to_numpy()


def test_everything_is_written_and_hangs_together(workspace: Workspace, tmp_path: Path):
    result = run(workspace, output=tmp_path, against="argmax")
    found = Evaluation.load(tmp_path / "evaluation.json")
    assert set(found.files) == {
        "confusion.png", "roc.png", "calibration.png", "net-benefit.png", "sensitivity.png", "challenge.csv",
    }  # fmt: skip
    for name in found.files:
        assert (tmp_path / name).stat().st_size > 100
    assert found.body["figures"] == result.figures["figures"]
    bacc = found.body["figures"]["bacc"]
    assert bacc["low"] < bacc["value"] < bacc["high"]
    json.dumps(result.figures, allow_nan=False)
    assert found.body["decision"] == "calibrated (guaranteed)"
    assert [verdict["class_name"] for verdict in found.body["targets"]] == ["MEL"]
    differences = found.body["comparison"]["differences"]
    assert differences["bacc"]["value"] == pytest.approx(bacc["value"] - differences["bacc"]["theirs"])
    assert differences["macro_auc"]["value"] == 0.0


def test_official_table_has_the_figures_of_the_evaluation(workspace: Workspace, tmp_path: Path):
    test = Predictions.load(workspace.ensemble_predictions("test"))
    plain = run(workspace, output=tmp_path / "plain", n_resamples=0).figures
    ids, values = official(tmp_path / "plain")
    assert ids == test.table["id"].tolist()
    assert metrics.balanced_accuracy(test.labels, metrics.scored_argmax(values)) == pytest.approx(
        plain["argmax_bacc"]
    )
    text = (tmp_path / "plain" / "challenge.csv").read_text()
    assert all("." in cell for line in text.splitlines()[1:] for cell in line.split(",")[1:])
    decided = run(workspace, output=tmp_path / "decided", thresholded=True, n_resamples=0).figures
    _, values = official(tmp_path / "decided")
    bacc = metrics.balanced_accuracy(test.labels, metrics.scored_argmax(values))
    assert bacc == pytest.approx(decided["figures"]["bacc"]["value"], abs=1e-6)
    assert bacc != pytest.approx(plain["argmax_bacc"], abs=1e-3)


def test_thresholds_are_never_judged_on_what_they_were_fitted_on(workspace: Workspace):
    with pytest.raises(UsageError, match="fitted on these images"):
        run(workspace, part="val")
    assert run(workspace, part="val", decision="argmax").figures["decision"] == "argmax"


def test_a_part_without_predictions_is_named_with_the_reason(tmp_path: Path):
    made = made_workspace.make(tmp_path, n_lesions=60, members=("one",))
    ensemble.run(ensemble.EnsembleSettings(workspace=made.root, export=False), SilentReporter())
    made.ensemble_predictions("test").unlink()
    with pytest.raises(ArtifactError, match="no predictions of test images") as lacking:
        run(made)
    assert "skinlesion train" in lacking.value.hint
    manifest = Manifest.load(made.manifest)
    split = Split.load(made.split, manifest).table
    split.loc[split["part"] == "test", "part"] = "train"
    Split(split, "published", 1, leaks_lesions=True).save(made.split, manifest)
    with pytest.raises(ArtifactError, match="no predictions of test images") as no_part:
        run(made)
    assert "has no test images" in no_part.value.hint
    assert "--split grouped" in no_part.value.hint


def test_an_evaluation_of_an_earlier_calibration_is_out_of_date(tmp_path: Path):
    made = made_workspace.make(tmp_path, n_lesions=60, members=("one",))
    ensemble.run(ensemble.EnsembleSettings(workspace=made.root, export=False), SilentReporter())

    def calibrated(policy: str) -> None:
        settings = calibrate.CalibrateSettings(workspace=made.root, fit=FitSettings(policy=policy))
        calibrate.run(settings, SilentReporter())

    calibrated("none")
    assert run(made).next_command == "skinlesion predict ./images --report"

    def state() -> str:
        result = info.run(info.InfoSettings(workspace=made.root), SilentReporter())
        return {row[0]: row[1] for row in result.tables[0].rows}["evaluate"]

    assert state() == "done"
    calibrated("published")
    assert state() == "out of date"


def test_subgroups_have_support_and_unknowns_are_a_group(workspace: Workspace):
    body = run(workspace).figures
    groups, total = body["subgroups"], body["support"]["images"]
    for kind in ("sex", "age", "site", "lesion also in training"):
        assert sum(group["images"] for name, group in groups.items() if name.startswith(kind + ":")) == total
    assert groups["sex: unknown"]["images"] > 0
    assert groups["age: unknown"]["bacc"]["value"] is not None
    mates = groups["lesion also in training: yes"]
    assert (mates["images"], mates["bacc"]["value"]) == (0, None)


def test_lesion_mates_in_training_are_found(workspace: Workspace):
    groups = run(workspace, part="val", decision="argmax").figures["subgroups"]
    assert groups["lesion also in training: yes"]["lesions"] == 1


@pytest.mark.parametrize(("fold_of_mate", "lesions_with_mates"), [("0", 0), ("1", 1)])
def test_what_a_fold_held_out_has_mates_only_in_the_other_folds(tmp_path, fold_of_mate, lesions_with_mates):
    workspace = made_workspace.make(tmp_path, n_lesions=60, members=("one",))
    found = Predictions.load(workspace.predictions("one", "val"))
    folds = (pd.factorize(found.table["lesion_id"])[0] % 2).astype(str)
    # The first lesion, of fold 0, has one more photograph. As `kfold` has it,
    # all that is dealt is to train on.
    split = pd.DataFrame({"id": found.table["id"], "part": "train", "fold": folds})
    split.loc[len(split)] = ["train_mate", "train", fold_of_mate]
    manifest = Manifest.load(workspace.manifest)
    test = Predictions.load(workspace.predictions("one", "test")).table[["id", "fold"]].assign(part="test")
    made = Split(pd.concat([split, test]), "published", 1, leaks_lesions=True)
    written = made.save(workspace.split, manifest)
    assert found.artifact is not None
    inputs = {**found.artifact.inputs, "split": written}
    replace(found, table=found.table.assign(fold=folds)).save(
        workspace.predictions("one", "val"), inputs=inputs
    )
    groups = run(workspace, source="one", part="val").figures["subgroups"]
    assert groups["lesion also in training: yes"]["lesions"] == lesions_with_mates


def test_one_member_and_a_paired_comparison(workspace: Workspace):
    body = run(workspace, source="one", against="two").figures
    one, two = (Predictions.load(workspace.predictions(name, "test")) for name in ("one", "two"))
    by_hand = [metrics.balanced_accuracy(p.labels, p.probabilities.argmax(axis=1)) for p in (one, two)]
    difference = body["comparison"]["differences"]["bacc"]
    assert difference["value"] == pytest.approx(by_hand[0] - by_hand[1], abs=1e-6)
    assert body["triage"] is None


def test_a_table_with_decisions(tmp_path: Path):
    header = "id,status," + ",".join(f"p_{name}" for name in ISIC2018.codes) + ",decision,label,lesion_id\n"
    rows = [
        "a,ok,0.2,0.8,0,0,0,0,0,MEL,MEL,L1",
        "b,ok,0.1,0.9,0,0,0,0,0,NV,NV,L2",
        "c,ok,0.6,0.4,0,0,0,0,0,MEL,NV,L3",
    ]
    (tmp_path / "p.csv").write_text(header + "\n".join(rows) + "\n")
    source = str(tmp_path / "p.csv")
    body = run(Workspace(tmp_path / "ws"), source=source, output=tmp_path / "e").figures
    assert body["decision"] == "decision column"
    assert body["figures"]["sensitivity/MEL"]["value"] == 1.0
    assert body["figures"]["sensitivity/NV"]["value"] == 0.5
    assert body["figures"]["sensitivity/BCC"]["value"] is None
    assert body["figures"]["ppv/MEL"]["value"] == 0.5
    plain = run(Workspace(tmp_path / "ws"), source=source, decision="argmax", output=tmp_path / "f").figures
    assert plain["figures"]["sensitivity/MEL"]["value"] == 0.0


def test_the_image_that_the_challenge_does_not_score(tmp_path: Path):
    header = "image," + ",".join(ISIC2018.codes) + ",label\n"
    (tmp_path / "p.csv").write_text(
        header + "ISIC_0035068,1,0,0,0,0,0,0,NV\nISIC_1,0,1,0,0,0,0,0,NV\nISIC_2,1,0,0,0,0,0,0,MEL\n"
    )
    result = run(Workspace(tmp_path / "ws"), source=str(tmp_path / "p.csv"), output=tmp_path / "e")
    assert result.figures["support"]["images"] == 2
    assert result.figures["figures"]["bacc"]["value"] == 1.0
    assert len(official(tmp_path / "e")[0]) == 3
    assert any("ISIC_0035068" in warning for warning in result.warnings)
    assert any("lesion of its own" in warning for warning in result.warnings)


def test_usage_errors(workspace: Workspace, tmp_path: Path):
    with pytest.raises(UsageError, match="three"):
        run(workspace, source="three")
    with pytest.raises(UsageError, match="ensemble only"):
        run(workspace, source="one", decision="calibrated")
    with pytest.raises(UsageError, match="best"):
        run(workspace, decision="best")
    (tmp_path / "p.csv").write_text("image,MEL\n")
    with pytest.raises(DataError, match="probabilities"):
        run(workspace, source=str(tmp_path / "p.csv"))


def test_two_policies_are_compared_by_their_files(workspace: Workspace, tmp_path: Path):
    other = tmp_path / "published.json"
    settings = load_policy(None, overrides={"policy": "published"})
    calibrate.run(
        calibrate.CalibrateSettings(workspace=workspace.root, fit=settings, output=other),
        SilentReporter(),
    )
    body = run(workspace, against=str(other)).figures
    assert body["decision"] == "calibrated (guaranteed)"
    assert body["comparison"]["their_decision"] == "calibrated (published)"
    difference = body["comparison"]["differences"]["bacc"]
    assert difference["low"] <= difference["value"] <= difference["high"]
    assert difference["value"] != 0.0


def test_a_prediction_table_is_judged_with_its_decisions_triage_and_the_guarantees_of_its_model(
    tmp_path: Path,
):
    model = Bundle.load(bundled_model())
    header = ",".join(
        [
            "id",
            "status",
            *(f"p_{name}" for name in ISIC2018.codes),
            "decision",
            "triage",
            "alarm",
            "model_sha256",
        ]
    )
    certain = {
        name: ",".join("1.0" if name == other else "0.0" for other in ISIC2018.codes)
        for name in ISIC2018.codes
    }
    rows = [
        f"in/A_{i}.jpg,ok,{certain[argmax]},{decision},{level},{'MEL|malignant' if i in (0, 3) else ''},"
        f"{model.sha256}"
        for i, (argmax, decision, level) in enumerate(
            [("NV", "MEL", "refer"), ("NV", "NV", "routine"), ("MEL", "MEL", "refer"), ("NV", "NV", "review")]
        )
    ]
    table, truth = tmp_path / "p.csv", tmp_path / "truth.csv"
    table.write_text("\n".join([header, *rows]) + "\n")
    labels = ("MEL", "MEL", "MEL", "NV")
    truth.write_text("image,label\n" + "".join(f"A_{i},{label}\n" for i, label in enumerate(labels)))
    empty = Workspace(tmp_path / "empty")
    body = run(empty, source=str(table), truth=truth, output=tmp_path / "out").figures
    # By hand: MEL is decided for 2 of its 3 images, and the one nevus is not called melanoma.
    assert body["figures"]["sensitivity/MEL"]["value"] == pytest.approx(2 / 3)
    assert body["figures"]["specificity/MEL"]["value"] == 1.0
    assert {level: body["triage"][level]["images"] for level in ("refer", "review", "routine")} == {
        "refer": 2, "review": 1, "routine": 1,
    }  # fmt: skip
    assert body["triage"]["malignant_lesions_seen"]["hits"] == 2
    wanted = [(target["class_name"], target["sensitivity"]) for target in model.calibration.targets]
    assert [(t["class_name"], t["target_sensitivity"]) for t in body["targets"]] == wanted
    # Targets are about alarms: that of MEL fires on one of three melanomas, and on the nevus.
    (mel,) = body["targets"]
    assert (mel["sensitivity"]["hits"], mel["sensitivity"]["n"], mel["specificity"]["hits"]) == (1, 3, 0)
    assert [(each["level"], each["met"]) for each in body["level_guarantees"]] == [
        ("refer", True),
        ("routine", False),
    ]
    table.write_text(table.read_text().replace(model.sha256, "0" * 64))
    other = run(empty, source=str(table), truth=truth, output=tmp_path / "other").figures
    assert other["targets"] == []


def test_another_prevalence_and_earlier_evaluations_beside_this_one(workspace: Workspace, tmp_path: Path):
    run(workspace, output=tmp_path / "first", decision="argmax")
    result = run(
        workspace, output=tmp_path / "second", prevalence={"MEL": 0.02}, beside=(tmp_path / "first",)
    )
    body = result.figures
    here, there = body["figures"], body["at_prevalence"]["figures"]
    sensitivity, specificity = (here[f"{name}/MEL"]["value"] for name in ("sensitivity", "specificity"))
    # By Bayes' rule; the other classes keep their shares among themselves, and with them the specificity.
    bayes = 0.02 * sensitivity / (0.02 * sensitivity + 0.98 * (1 - specificity))
    assert there["ppv/MEL"]["value"] == pytest.approx(bayes)
    (earlier,) = body["beside"]
    first = Evaluation.load(tmp_path / "first" / "evaluation.json").body
    assert earlier["figures"]["bacc"]["value"] == first["figures"]["bacc"]["value"]
    (table,) = [table for table in result.tables if table.title.startswith("Side by side")]
    assert len(table.columns) == 3
    # Triage in words: images per 1,000, with the counts here.
    levels = body["triage_figures"]["levels"]
    referred = round(1000 * levels["refer"]["images"] / body["support"]["images"])
    assert any(line.startswith(f"Of 1,000 images like these, {referred} (") for line in result.headline)
    assert f"{levels['routine']['malignant']:,} of the" in result.headline[-1]
