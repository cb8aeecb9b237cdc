"""Tables from elsewhere: nothing guessed, every offender named."""

from __future__ import annotations

from pathlib import Path

import pytest

from skinlesion_cli.artifacts import external_predictions
from skinlesion_cli.errors import DataError

HEADER = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "t.csv"
    path.write_text(text)
    return path


def test_truth_one_hot_and_odd_ids_stay_text(tmp_path: Path):
    found = external_predictions.read_truth(
        write(tmp_path, HEADER + "NA,1.0,0,0,0,0,0,0\n001,0,0,0,0,0,0,1.0\n1e5,0,1,0,0,0,0,0\n")
    )
    assert found.table["id"].tolist() == ["NA", "001", "1e5"]
    assert found.table["label"].tolist() == ["MEL", "VASC", "NV"]
    assert not found.lesions_known


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEADER + "a,1,1,0,0,0,0,0\n", "exactly one class for a"),
        (HEADER + "a,0,0,0,0,0,0,0\n", "exactly one class for a"),
        (HEADER + "a,1,0,0,0,0,0,0\na,1,0,0,0,0,0,0\n", "more than once: a"),
        ("image,label\na,MELANOMA\n", "no known class for a"),
        ("name,label\na,MEL\n", "no column of image ids"),
        ("image\na\n", "no labels"),
    ],
)
def test_truth_that_cannot_be_used(tmp_path: Path, text: str, says: str):
    with pytest.raises(DataError, match=says):
        external_predictions.read_truth(write(tmp_path, text))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("a,nan,0,0,0,0,0,1,MEL", "no probability for a"),
        ("a,x,0,0,0,0,0,1,MEL", "no probability for a"),
        ("a,,0,0,0,0,0,1,MEL", "no probability for a"),
        ("a,-0.1,0,0,0,0,0.1,1,MEL", "no probability for a"),
        ("a,0.5,0,0,0,0,0,1,MEL", "sum to 1 for a"),
        ("a,1,0,0,0,0,0,0,", "no known class for a"),
    ],
)
def test_predictions_that_cannot_be_used(tmp_path: Path, row: str, says: str):
    with pytest.raises(DataError, match=says):
        external_predictions.read_predictions(write(tmp_path, HEADER.strip() + ",label\n" + row + "\n"), None)


def test_images_without_truth_and_missing_files(tmp_path: Path):
    truth = external_predictions.read_truth(write(tmp_path, "id,label\nb,MEL\n"))
    path = tmp_path / "p.csv"
    path.write_text(HEADER + "a,1,0,0,0,0,0,0\n")
    with pytest.raises(DataError, match="without a known class: a"):
        external_predictions.read_predictions(path, truth)
    with pytest.raises(DataError, match="no table"):
        external_predictions.read_predictions(tmp_path / "none.csv", truth)


def test_failed_rows_are_not_swallowed(tmp_path: Path):
    text = "id,status,error,p_MEL,p_NV,p_BCC,p_AKIEC,p_BKL,p_DF,p_VASC,label\na,error,truncated,,,,,,,,MEL\n"
    with pytest.raises(DataError, match="no prediction for a"):
        external_predictions.read_predictions(write(tmp_path, text), None)
