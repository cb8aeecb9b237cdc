"""Tables from elsewhere: nothing guessed, every offender named."""

from __future__ import annotations

from pathlib import Path

import pytest

from skinlesion_cli.artifacts import external_predictions, external_truth
from skinlesion_cli.errors import DataError
from tests.support.class_lists import ISIC2018

HEADER = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "t.csv"
    path.write_text(text)
    return path


def test_truth_one_hot_and_odd_ids_stay_text(tmp_path: Path):
    found = external_truth.read_truth(
        write(tmp_path, HEADER + "NA,1.0,0,0,0,0,0,0\n001,0,0,0,0,0,0,1.0\n1e5,0,1,0,0,0,0,0\n"),
        classes=ISIC2018,
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
        ("image,label\na,WART\n", "no known class for a"),
        ("name,label\na,MEL\n", "no column of image ids"),
        ("image\na\n", "no labels"),
    ],
)
def test_truth_that_cannot_be_used(tmp_path: Path, text: str, says: str):
    with pytest.raises(DataError, match=says):
        external_truth.read_truth(write(tmp_path, text), classes=ISIC2018)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("a,nan,0,0,0,0,0,1,MEL", "not numbers for a"),
        ("a,x,0,0,0,0,0,1,MEL", "not numbers for a"),
        ("a,,0,0,0,0,0,1,MEL", "not numbers for a"),
        ("a,-0.1,0,0,0,0,0.1,1,MEL", "logits .* for a"),
        ("a,60,10,10,10,10,0,0,MEL", "percentages, .* for a"),
        ("a,1.5,0,0,0,0,0,0,MEL", "outside 0 to 1, .* for a"),
        ("a,0.5,0,0,0,0,0,1,MEL", "sum to 1 for a"),
        ("a,1,0,0,0,0,0,0,", "no known class for a"),
    ],
)
def test_predictions_that_cannot_be_used(tmp_path: Path, row: str, says: str):
    with pytest.raises(DataError, match=says):
        external_predictions.read_predictions(
            write(tmp_path, HEADER.strip() + ",label\n" + row + "\n"), None, classes=ISIC2018
        )


def test_images_without_truth_and_missing_files(tmp_path: Path):
    truth = external_truth.read_truth(write(tmp_path, "id,label\nb,MEL\n"), classes=ISIC2018)
    path = tmp_path / "p.csv"
    path.write_text(HEADER + "a,1,0,0,0,0,0,0\n")
    with pytest.raises(DataError, match="without a known class: a"):
        external_predictions.read_predictions(path, truth, classes=ISIC2018)
    with pytest.raises(DataError, match="no table"):
        external_predictions.read_predictions(tmp_path / "none.csv", truth, classes=ISIC2018)


def test_columns_in_any_case_and_ids_with_or_without_folder_and_suffix(tmp_path: Path):
    truth = external_truth.read_truth(
        write(tmp_path, "Image_ID,Label\nISIC_1,NV\nISIC_2,MEL\nISIC_3,BKL\n"), classes=ISIC2018
    )
    path = tmp_path / "p.csv"
    path.write_text(
        "filename,mel,Nv,bcc,AKIEC,bkl,df,vasc,Decision,TRIAGE\n"
        "images/ISIC_2.JPG,1,0,0,0,0,0,0,MEL,refer\n"
        "b\\ISIC_1,0,1,0,0,0,0,0,BKL,routine\n"
    )
    table = external_predictions.read_predictions(path, truth, classes=ISIC2018)
    assert table.predictions.table["id"].tolist() == ["ISIC_2", "ISIC_1"]
    assert table.predictions.labels.tolist() == [0, 1]
    assert table.decided.tolist() == [0, 4]
    assert table.levels.tolist() == ["refer", "routine"]
    assert [note.split()[0] for note in table.notes] == ["2", "1"]


def test_ids_that_are_ambiguous_without_their_folder_are_refused(tmp_path: Path):
    truth = external_truth.read_truth(write(tmp_path, "id,label\na,MEL\n"), classes=ISIC2018)
    path = tmp_path / "p.csv"
    path.write_text(HEADER + "x/a.jpg,1,0,0,0,0,0,0\ny/a.jpg,1,0,0,0,0,0,0\n")
    with pytest.raises(DataError, match="more than once: a"):
        external_predictions.read_predictions(path, truth, classes=ISIC2018)


def test_probabilities_rounded_to_two_decimals_are_renormalised(tmp_path: Path):
    text = "id,MEL,NV,BCC,AKIEC,BKL,DF,VASC,label\na,0.33,0.33,0.33,0,0,0,0,MEL\nb,0.5,0.5,0,0,0,0,0,NV\n"
    table = external_predictions.read_predictions(write(tmp_path, text), None, classes=ISIC2018)
    assert table.predictions.probabilities[0, :3] == pytest.approx([1 / 3] * 3)
    assert table.notes[0].startswith("1 rows of rounded")
    off = text.replace("0.33,0.33,0.33", "0.333,0.33,0.33")
    with pytest.raises(DataError, match="do not sum to 1 for a"):
        external_predictions.read_predictions(write(tmp_path, off), None, classes=ISIC2018)


def test_failed_rows_are_left_out_and_counted(tmp_path: Path):
    text = (
        "id,status,error,p_MEL,p_NV,p_BCC,p_AKIEC,p_BKL,p_DF,p_VASC,label\n"
        "a,error,truncated,,,,,,,,MEL\nb,ok,,1,0,0,0,0,0,0,MEL\n"
    )
    table = external_predictions.read_predictions(write(tmp_path, text), None, classes=ISIC2018)
    assert table.predictions.table["id"].tolist() == ["b"]
    assert table.notes == ("1 image could not be read and not judged: a",)


def test_failed_rows_are_not_swallowed(tmp_path: Path):
    text = "id,status,error,p_MEL,p_NV,p_BCC,p_AKIEC,p_BKL,p_DF,p_VASC,label\na,error,truncated,,,,,,,,MEL\n"
    with pytest.raises(DataError, match="no prediction for a"):
        external_predictions.read_predictions(write(tmp_path, text), None, classes=ISIC2018)


def test_truth_as_people_write_it(tmp_path: Path):
    path = write(tmp_path, "")
    path.write_bytes("Filename;DX;Lesion ID\r\na.jpg;melanoma;L1\r\nb.jpg;naevus;L1\r\n".encode("utf-16"))
    found = external_truth.read_truth(path, classes=ISIC2018)
    assert found.table.to_dict("list") == {
        "id": ["a.jpg", "b.jpg"],
        "label": ["MEL", "NV"],
        "lesion_id": ["L1", "L1"],
    }


def test_predictions_with_semicolons_and_decimal_commas(tmp_path: Path):
    header = "image;Melanoma;Nevus;bcc;ak;Seborrheic Keratosis;dermatofibroma;vascular lesion;label\n"
    path = write(tmp_path, header + "a;0,25;0,75;0;0;0;0;0;nevus\n")
    found = external_predictions.read_predictions(path, None, classes=ISIC2018)
    assert found.predictions.probabilities.ravel().tolist() == [0.25, 0.75, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert found.predictions.table["label"].tolist() == ["NV"]


def test_a_class_column_of_predictions_is_no_truth(tmp_path: Path):
    path = write(tmp_path, HEADER.replace("image,", "image,class,") + "a,MEL,1,0,0,0,0,0,0\n")
    with pytest.raises(DataError, match="no truth was given"):
        external_predictions.read_predictions(path, None, classes=ISIC2018)
