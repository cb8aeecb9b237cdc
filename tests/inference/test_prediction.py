"""One prediction: its row, its columns, and tables that earlier versions wrote (`older_tables/`)."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from skinlesion_cli.artifacts import prediction_file
from skinlesion_cli.artifacts.external_predictions import read_predictions
from skinlesion_cli.artifacts.external_truth import read_truth
from skinlesion_cli.artifacts.prediction_columns import escape_formula, unescape_formula
from skinlesion_cli.data.reading.inputs import expand, lines
from skinlesion_cli.errors import ArtifactError, ImageError
from skinlesion_cli.inference.prediction import ERROR, IN_TRAINING, Prediction
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.report.batch import BatchPage, page
from skinlesion_cli.stages import merge
from tests.support.class_lists import ISIC2018, TABLE

OLDER = Path(__file__).parent / "older_tables"
# As the earlier version called them.
OLDER_NAMES = [
    "row",
    "id",
    "status",
    "error",
    "p_MEL",
    "p_NV",
    "p_BCC",
    "p_AKIEC",
    "p_BKL",
    "p_DF",
    "p_VASC",
    "argmax",
    "decision",
    "threshold_fired",
    "malignant_probability",
    "conformal_set",
    "triage",
    "quality",
    "quality_score",
    "doubtful",
    "passes",
    "tta",
    "overlay",
    "overlay_magnitude",
    "model",
    "model_sha256",
]
MADE = Prediction(
    row=7,
    id="=a.jpg",
    probabilities=dict(
        zip(ISIC2018.codes, (0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.015625), strict=True)
    ),
    argmax="MEL",
    decision="MEL",
    threshold_fired="MEL",
    malignant_probability=0.6875,
    conformal_set=("MEL", "NV"),
    triage="review",
    quality=("too_dark", "hair"),
    quality_score=0.25,
    flagged=True,
    forward_passes=16,
    tta="adaptive",
    overlay="=a.jpg.cam.png",
    overlay_magnitude=0.0,
    overlay_outside_lesion=0.25,
    model="one+two",
    model_sha256="ab" * 32,
)


def test_a_row_of_csv_written_out() -> None:
    line = TABLE.encode(MADE.to_row(ISIC2018.codes), "csv").decode()
    cells = dict(zip(TABLE.names, line.rstrip("\n").split(","), strict=True))
    assert cells["row"] == "7"
    assert cells["id"] == "'=a.jpg"
    assert (cells["status"], cells["error"]) == ("ok", "")
    assert (cells["p_MEL"], cells["p_VASC"]) == ("0.5", "0.015625")
    assert (cells["conformal_set"], cells["quality"], cells["flagged"]) == ("MEL|NV", "too_dark|hair", "true")
    assert (cells["forward_passes"], cells["overlay_magnitude"]) == ("16", "0.0")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize(
    "prediction",
    [
        MADE,
        replace(MADE, quality=(), flagged=False, threshold_fired=None, overlay=None, overlay_magnitude=None),
        replace(MADE, quality=None, quality_score=None, flagged=None, conformal_set=None),
        Prediction.failed("b\\x0a.jpg", ImageError("empty", "the file\nis empty"), tta="d4", model="one"),
    ],
)
def test_a_prediction_reads_back_as_it_was(prediction: Prediction, kind: str) -> None:
    line = TABLE.encode(prediction.to_row(ISIC2018.codes), kind)
    assert Prediction.from_row(TABLE.decode(line, kind)) == prediction


def test_what_could_not_be_read_has_no_result() -> None:
    failed = Prediction.failed("a.jpg", ImageError("empty", "the file\n is  empty"))
    assert (failed.status, failed.error) == (ERROR, "empty: the file is empty")
    assert failed.probabilities is None
    assert failed.triage is None
    with pytest.raises(ValueError, match="status"):
        Prediction(id="a.jpg", error="empty")
    with pytest.raises(ValueError, match="status"):
        Prediction(id="a.jpg", status="error")


def test_columns_keep_their_order() -> None:
    renamed = {"doubtful": "flagged", "passes": "forward_passes"}
    expected = [renamed.get(name, name) for name in OLDER_NAMES]
    assert [name for name in TABLE.names if name in expected] == expected


@pytest.mark.parametrize("text", ["=1", "'=1", "''=1", "'a'.jpg", "'", "", "a=1", "-", "@x", "'-'"])
def test_escaping_is_undone_exactly(text: str) -> None:
    cell = escape_formula(text)
    assert not cell.startswith(("=", "+", "-", "@"))
    assert unescape_formula(cell) == text


def older(kind: str) -> list[Prediction]:
    path = OLDER / f"predictions.{kind}"
    return [Prediction.from_row(row) for row in prediction_file.read_rows(path, kind, TABLE)]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_older_tables_are_read(kind: str) -> None:
    first, second, third = older(kind)
    assert [p.id for p in (first, second, third)] == ["=1+1.png", "b.png", "broken.jpg"]
    assert (first.forward_passes, first.flagged, first.decision, first.triage) == (16, None, "DF", "routine")
    assert second.probabilities is not None
    assert second.probabilities["NV"] == pytest.approx(0.14330047, abs=1e-9)
    assert (third.status, third.error) == ("error", "empty: the file is empty")


def test_older_parquet_is_read(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    lines = (OLDER / "predictions.jsonl").read_text().splitlines()
    parquet.write_table(pa.Table.from_pylist([json.loads(line) for line in lines]), tmp_path / "a.parquet")
    rows = prediction_file.read_rows(tmp_path / "a.parquet", "parquet", TABLE)
    assert [Prediction.from_row(row) for row in rows] == older("jsonl")


def test_older_shards_merge_to_a_table_of_today(tmp_path: Path) -> None:
    for name in ("part-1.csv", "part-2.csv"):
        shutil.copy(OLDER / name, tmp_path)
        shutil.copy(OLDER / f"{name}.shard", tmp_path)
    output = tmp_path / "all.csv"
    config = merge.MergeSettings(shards=(tmp_path / "part-2.csv", tmp_path / "part-1.csv"), output=output)
    merge.run(config, SilentReporter())
    assert output.read_bytes().startswith(TABLE.header("csv"))
    assert [Prediction.from_row(row) for row in prediction_file.read_rows(output, "csv", TABLE)] == older(
        "csv"
    )


def test_an_older_table_makes_a_page_and_can_be_evaluated(tmp_path: Path) -> None:
    about = BatchPage(
        title="older",
        thumbnail=lambda identity: None,
        thumbnail_url=str,
        overlay_url=str,
        halves=False,
        thresholds={},
        policy=(),
        facts={},
        model_sha256="",
        classes=ISIC2018,
    )
    html = page(older("csv"), about)
    assert "=1+1.png" in html
    assert "broken.jpg" in html
    (tmp_path / "truth.csv").write_text("id,label\n=1+1.png,DF\nb.png,NV\n")
    read = read_predictions(
        OLDER / "predictions.csv", read_truth(tmp_path / "truth.csv", classes=ISIC2018), classes=ISIC2018
    )
    assert read.predictions.table["id"].tolist() == ["=1+1.png", "b.png"]
    assert read.decided is not None
    assert read.decided.tolist() == [5, 5]


def test_an_older_unfinished_table_is_refused_with_the_columns_that_differ(tmp_path: Path) -> None:
    output = tmp_path / "all.csv"
    record = json.loads((OLDER / "part-1.csv.shard").read_text())
    del record["inputs"]
    shutil.copy(OLDER / "part-1.csv", prediction_file.partial_path(output))
    prediction_file.run_path(output).write_text(json.dumps(record))
    now = record | {"columns": list(TABLE.names)}
    with (
        pytest.raises(ArtifactError, match=r"columns: \['doubtful', 'passes'\] then, .*'forward_passes'"),
        prediction_file.open_partial(output, "csv", TABLE, now, resume=True, overwrite=False),
    ):
        pass


def test_a_name_of_64_kb_that_is_no_text_reads_back() -> None:
    (source,) = expand((), lines(io.BytesIO(b"\xff" * 70_000)))
    row = TABLE.empty_row() | {"row": 1, "id": source.id, "status": "error", "error": "unreadable"}
    assert len(source.id) == 6 * 65_536
    assert TABLE.decode(TABLE.encode(row, "csv"), "csv")["id"] == source.id


def test_a_note_that_quotes_a_separator_stays_one_note() -> None:
    quoted = f"taken as not known: site 'x|{IN_TRAINING}|y'"
    row = Prediction(id="a.dcm", notes=("greyscale", quoted)).to_row(())
    read = Prediction.from_row(row)
    assert read.notes == ("greyscale", f"taken as not known: site 'x/{IN_TRAINING}/y'")
    assert not read.in_training
