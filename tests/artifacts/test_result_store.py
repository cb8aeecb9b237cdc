"""A prediction table while it grows: what is kept, what is cut off, what is refused."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from skinlesion_cli.artifacts import own_files, prediction_file
from skinlesion_cli.errors import ArtifactError, SkinLesionError, UsageError
from tests.support.class_lists import TABLE

RUN = {"model": "one", "views": ["identity"], "shard": None}


def row(number: int) -> dict:
    return TABLE.empty_row() | {
        "row": number,
        "id": f"{number}.jpg",
        "status": "ok",
        "p_MEL": 0.25,
    }


def write(output: Path, kind: str, count: int, *, resume: bool = False, overwrite: bool = False) -> None:
    with prediction_file.open_partial(
        output, kind, TABLE, RUN, resume=resume, overwrite=overwrite
    ) as partial:
        partial.write(row(number) for number in range(1, count + 1))


@pytest.mark.parametrize(
    ("name", "wanted", "expected"),
    [
        ("a.CSV", None, "csv"),
        ("a.ndjson", None, "jsonl"),
        ("a.txt", "csv", "csv"),
        ("a.csv", "jsonl", "jsonl"),
    ],
)
def test_the_format_is_what_was_asked_for_or_what_the_name_says(name: str, wanted: str | None, expected: str):
    assert prediction_file.format_of(Path(name), wanted) == expected


@pytest.mark.parametrize(("name", "wanted"), [("a.xlsx", None), ("a", None), ("a.csv", "xml")])
def test_another_format_is_refused(name: str, wanted: str | None):
    with pytest.raises(UsageError, match=wanted or name):
        prediction_file.format_of(Path(name), wanted)


def test_parquet_without_pyarrow_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UsageError, match="needs pyarrow"):
        prediction_file.format_of(Path("a.parquet"))


def test_a_stream_gets_one_line_a_row():
    stream = io.BytesIO()
    prediction_file.StreamSink(stream, TABLE).write([row(1), row(2)])
    assert [json.loads(line)["row"] for line in stream.getvalue().splitlines()] == [1, 2]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_an_unfinished_table_is_never_passed_over(kind: str, tmp_path):
    output = tmp_path / f"a.{kind}"
    write(output, kind, 3)
    assert not output.exists()
    with pytest.raises(UsageError, match="unfinished run"):
        write(output, kind, 1)
    with prediction_file.open_partial(output, kind, TABLE, RUN, resume=True, overwrite=False) as partial:
        assert [found["row"] for found in partial.finished_rows()] == [1, 2, 3]
        partial.write_line(row(4))
        partial.finish()
    assert [found["row"] for found in prediction_file.read_rows(output, kind, TABLE)] == [1, 2, 3, 4]
    assert sorted(path.name for path in tmp_path.glob("a.*")) == [f"a.{kind}"]


def test_overwriting_drops_the_earlier_rows(tmp_path):
    output = tmp_path / "a.csv"
    write(output, "csv", 3)
    write(output, "csv", 1, overwrite=True)
    assert prediction_file.partial_path(output).read_bytes().count(b"\n") == 2


def test_half_a_line_is_cut_off_and_made_again(tmp_path):
    output = tmp_path / "a.csv"
    write(output, "csv", 2)
    whole = prediction_file.partial_path(output).read_bytes()
    prediction_file.partial_path(output).write_bytes(whole[:-5])
    with prediction_file.open_partial(output, "csv", TABLE, RUN, resume=True, overwrite=False) as partial:
        assert [found["row"] for found in partial.finished_rows()] == [1]
        partial.write([row(2)])
    assert prediction_file.partial_path(output).read_bytes() == whole


def test_a_file_without_its_first_line_begins_again(tmp_path):
    output = tmp_path / "a.csv"
    write(output, "csv", 2)
    prediction_file.partial_path(output).write_bytes(b"row,i")
    with prediction_file.open_partial(output, "csv", TABLE, RUN, resume=True, overwrite=False) as partial:
        assert list(partial.finished_rows()) == []
    assert prediction_file.partial_path(output).read_bytes() == TABLE.header("csv")


def test_only_the_rows_that_still_stand_are_kept(tmp_path):
    output = tmp_path / "a.csv"
    write(output, "csv", 5)
    with prediction_file.open_partial(output, "csv", TABLE, RUN, resume=True, overwrite=False) as partial:
        partial.keep(2)
        partial.write([row(9)])
        partial.finish()
    assert [found["row"] for found in prediction_file.read_rows(output, "csv", TABLE)] == [1, 2, 9]


def test_rows_of_another_model_are_not_gone_on_with(tmp_path):
    output = tmp_path / "a.csv"
    write(output, "csv", 1)
    other = RUN | {"model": "two"}
    with (
        pytest.raises(ArtifactError, match="model: 'one' then, 'two' now"),
        prediction_file.open_partial(output, "csv", TABLE, other, resume=True, overwrite=False),
    ):
        pass
    prediction_file.run_path(output).write_text("{")
    with pytest.raises(ArtifactError, match="record is unreadable"):
        write(output, "csv", 1, resume=True)
    assert prediction_file.partial_path(output).read_bytes().count(b"\n") == 2


def test_a_shard_says_what_it_was_made_from(tmp_path):
    output = tmp_path / "a.csv"
    with prediction_file.open_partial(output, "csv", TABLE, RUN, resume=False, overwrite=False) as partial:
        partial.write([row(1)])
        partial.finish({"count": 7})
    record = json.loads(prediction_file.shard_path(output).read_text())
    assert record == RUN | {"inputs": {"count": 7}}


def test_parquet_holds_the_same_rows_with_types(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    output = tmp_path / "a.parquet"
    with prediction_file.open_partial(
        output, "parquet", TABLE, RUN, resume=False, overwrite=False
    ) as partial:
        partial.write([row(1), row(2) | {"flagged": True, "p_MEL": None}])
        partial.finish()
    assert not prediction_file.partial_path(output).exists()
    assert str(parquet.read_schema(output).field("p_MEL").type) == "float"
    found = list(prediction_file.read_rows(output, "parquet", TABLE))
    assert [(one["row"], one["p_MEL"], one["flagged"]) for one in found] == [
        (1, 0.25, None),
        (2, None, True),
    ]


def test_a_folder_that_cannot_be_written(tmp_path):
    output = tmp_path / "a.csv"
    prediction_file.partial_path(output).mkdir()
    with pytest.raises(SkinLesionError, match=r"cannot write .*partial"):
        write(output, "csv", 1, resume=False, overwrite=True)


class FullDisk(io.BytesIO):
    def write(self, data) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("method", ["write", "write_line"])
def test_a_full_disk_is_told_with_the_way_on(method: str, tmp_path):
    partial = prediction_file.PartialFile(tmp_path / "a.csv", "csv", TABLE, RUN, FullDisk())
    with pytest.raises(SkinLesionError, match="No space left") as told:
        partial.write([row(1)]) if method == "write" else partial.write_line(row(1))
    assert "--resume" in told.value.hint


def test_what_is_no_table_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("row,id\n1,x\n")
    with pytest.raises(ArtifactError, match="not a table of predictions"):
        list(prediction_file.read_rows(tmp_path / "a.csv", "csv", TABLE))
    with pytest.raises(ArtifactError, match="cannot be read"):
        list(prediction_file.read_rows(tmp_path / "none.csv", "csv", TABLE))


@pytest.mark.parametrize("content", [None, b"", b"PAR1 and no more"])
def test_what_is_no_parquet_is_refused(content: bytes | None, tmp_path):
    pytest.importorskip("pyarrow")
    if content is not None:
        (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"a\.parquet"):
        list(prediction_file.read_rows(tmp_path / "a.parquet", "parquet", TABLE))


def test_a_parquet_table_whose_column_names_are_no_text_is_refused(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"row": ["x"], "damaged": ["y"]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"damaged", b"dam\x94ged"))
    assert not own_files.is_prediction_table(path)
    with pytest.raises(ArtifactError, match=r"a\.parquet"):
        list(prediction_file.read_rows(path, "parquet", TABLE))


def test_a_parquet_table_of_something_else_is_refused(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"name": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(ArtifactError, match="not a table of predictions"):
        list(prediction_file.read_rows(tmp_path / "a.parquet", "parquet", TABLE))


@pytest.mark.parametrize("line", [b"[1, 2]\n", b'{"row": 1}\n', b"\xff\n", b"{}"])
def test_a_line_that_is_no_row(line: bytes):
    with pytest.raises(ArtifactError, match="not a row of a prediction table"):
        TABLE.decode(line, "jsonl")


def test_cells_read_back_as_they_were():
    made = row(3) | {"flagged": False, "forward_passes": 8, "overlay": "x.png"}
    for kind in ("csv", "jsonl"):
        found = TABLE.decode(TABLE.encode(made, kind), kind)
        assert (found["row"], found["flagged"], found["forward_passes"], found["p_NV"]) == (3, False, 8, None)
        assert found["id"] == "3.jpg"
