"""Classes without images: undefined stays undefined, with the support beside it, and is never 0 or 1."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from test_damaged_artifacts import rewritten

from skinlesion_cli.artifacts.predictions import Predictions
from tests.support.class_lists import ISIC2018
from tests.support.command_line import assert_refused, contents, files_below, run

pytestmark = pytest.mark.command_line

HEADER = ",".join(["id", *(f"p_{name}" for name in ISIC2018.codes), "label", "lesion_id"]) + "\n"


def keep_classes(path: Path, names: set[str]) -> None:
    """Keep only the images of these classes in stored predictions."""
    found = Predictions.load(path)
    assert found.artifact is not None
    kept = np.flatnonzero(found.table["label"].isin(names))
    assert len(kept)
    found.at(kept).save(path, inputs=found.artifact.inputs)


def result_of(*arguments: object) -> dict:
    done = run(*arguments, "--json", "--quiet")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_evaluate_says_undefined_of_classes_without_images(tmp_path: Path) -> None:
    rows = ["a,0.1,0.9,0,0,0,0,0,NV,L1", "b,0.8,0.2,0,0,0,0,0,NV,L2", "c,0.2,0.8,0,0,0,0,0,NV,L3"]
    (tmp_path / "p.csv").write_text(HEADER + "\n".join(rows) + "\n")
    arguments = ("evaluate", "--source", tmp_path / "p.csv", "--resamples", 20, "-w", tmp_path / "ws")
    told = result_of(*arguments, "-o", tmp_path / "json")
    figures = told["figures"]["figures"]
    # Two of the three are right; of the six other classes nothing can be said.
    assert figures["sensitivity/NV"]["value"] == pytest.approx(2 / 3)
    assert figures["bacc"]["value"] == pytest.approx(2 / 3)
    others = [name for name in ISIC2018.codes if name != "NV"]
    assert {figures[f"sensitivity/{name}"]["value"] for name in others} == {None}
    assert {figures[f"auc/{name}"]["value"] for name in ISIC2018.codes} == {None}
    assert figures["macro_auc"]["value"] is None
    assert told["figures"]["support"]["classes_without_images"] == others
    assert any(warning.startswith("no images of MEL, BCC") for warning in told["warnings"])
    done = run(*arguments, "-o", tmp_path / "text")
    assert "undefined" in done.output
    assert "nan" not in done.output.lower().split()
    assert "Warning" not in done.output
    kept = json.loads((tmp_path / "text" / "evaluation.json").read_text())["body"]["figures"]
    assert kept["sensitivity/MEL"]["value"] is None


def test_ensemble_says_which_classes_have_no_images(own_trained: Path) -> None:
    for member in ("one", "two"):
        keep_classes(own_trained / "models" / member / "predictions-val.json", {"MEL", "NV", "BKL"})
    told = result_of("ensemble", "-w", own_trained)
    assert told["figures"]["classes_without_images"] == ["BCC", "AKIEC", "DF", "VASC"]
    assert "no validation images of BCC, AKIEC, DF, VASC: BACC is the mean of the others" in told["warnings"]
    assert 0 < told["figures"]["validation_bacc"] < 1


def test_calibrate_guarantees_nothing_of_a_class_without_images(own_calibrated: Path) -> None:
    keep_classes(own_calibrated / "ensemble" / "predictions-val.json", {"MEL", "NV", "BKL"})
    told = result_of("calibrate", "--target", "AKIEC:sensitivity=0.75", "-w", own_calibrated)
    (guarantee,) = [found for found in told["figures"]["guarantees"] if found["class_name"] == "AKIEC"]
    assert (guarantee["lesions"], guarantee["sensitivity"], guarantee["granted"]) == (0, None, False)
    written = json.loads((own_calibrated / "calibration" / "calibration.json").read_text())["body"]
    assert written["rule"]["alarms"]["AKIEC"] == 1.0  # no probability exceeds it: it never fires


def test_calibrate_without_a_malignant_image_says_so(own_calibrated: Path) -> None:
    keep_classes(own_calibrated / "ensemble" / "predictions-val.json", {"NV", "BKL"})
    told = result_of("calibrate", "-w", own_calibrated)
    (malignant,) = [found for found in told["figures"]["guarantees"] if found["class_name"] == "malignant"]
    assert (malignant["lesions"], malignant["granted"], malignant["sensitivity"]) == (0, False, None)
    assert told["figures"]["triage"]["malignant_lesions_in_routine"]["share"] is None


def test_calibrate_on_one_class_is_refused_and_the_old_one_stays(own_calibrated: Path) -> None:
    keep_classes(own_calibrated / "ensemble" / "predictions-val.json", {"NV"})
    before = contents(own_calibrated)
    assert_refused(run("calibrate", "-w", own_calibrated), 1, "at least two classes")
    assert contents(own_calibrated) == before


@pytest.mark.parametrize(
    "arguments",
    [("train", "--arch", "tiny", "--weights", "none"), ("evaluate", "--resamples", "0"), ("gate",)],
)
def test_a_lesion_in_train_and_validation_stops_the_command(
    arguments: tuple[str, ...], own_calibrated: Path
) -> None:
    """One lesion of this workspace's validation images has a photograph in training; its split admits it."""
    split = own_calibrated / "dataset" / "split.json"
    rewritten(split, lambda envelope: envelope["body"].update(leaks_lesions=False))
    before = contents(own_calibrated)
    done = run(*arguments, "-w", own_calibrated)
    assert_refused(done, 1, "more than one side of the split: val-", "skinlesion download")
    assert contents(own_calibrated) == before


def test_a_table_that_puts_a_lesion_on_two_sides_makes_no_split(images: Path, tmp_path: Path) -> None:
    lines = ["image,label,lesion_id,part"]
    for index, (source, part) in enumerate(
        zip(sorted(images.rglob("*.jpg")), ("train", "val", "val", "test"), strict=True)
    ):
        shutil.copy(source, tmp_path / f"{index}.jpg")
        lines.append(f"{index},NV,{'shared' if index < 2 else index},{part}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    done = run("download", "--from", tmp_path / "labels.csv", "-w", tmp_path / "ws")
    assert_refused(done, 1, "shared")
    assert not [name for name in files_below(tmp_path / "ws") if "split" in name]
