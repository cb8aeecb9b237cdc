"""Tables that people wrote, as text or bytes: read or refused, never more than the memory holds."""

from __future__ import annotations

import csv
import os

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skinlesion_cli.artifacts import user_tables
from skinlesion_cli.artifacts.user_tables import numbers
from skinlesion_cli.errors import DataError

TABLE = "image;label\r\na.jpg;MEL\r\nb.jpg;NV\r\n"


def test_decimal_commas():
    cells = pd.Series(["0,5", "0.5", "1", "1e-3", "x", ""])
    assert numbers(cells, ";").tolist()[:4] == [0.5, 0.5, 1.0, 0.001]
    assert numbers(cells, ";").isna().tolist() == [False] * 4 + [True] * 2
    assert numbers(cells, ",").isna().tolist() == [True, False, False, False, True, True]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(
        [TABLE.encode(), TABLE.replace(";", "\t").encode("utf-16"), b"sep=|\nimage|label\na|MEL\n", b""]
    ),
    st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=4)), max_size=6),
)
def test_any_bytes_are_a_table_or_refused(content, changes):
    for position, inserted in changes:
        content = content[:position] + inserted + content[position + len(inserted) // 2 :]
    try:
        table = user_tables.read(content, "fuzzed.csv")
    except DataError:
        return
    assert all(isinstance(cell, str) for cell in table.cells.to_numpy().ravel())


@pytest.mark.parametrize(
    "content",
    [
        b"," * 2_000_000,
        b",".join([b"h"] * 1900) + b"\n" + b"a\n" * 20_000,
        b"a" * 2_000_000,
        b'"' * 2_000_000,
    ],
    ids=["separators", "short rows", "one cell", "quotes"],
)
def test_a_small_file_never_becomes_a_table_that_fills_the_memory(content, request):
    # Libraries raise this limit for the whole process; nothing may depend on it.
    before = csv.field_size_limit(2**31 - 1)
    request.addfinalizer(lambda: csv.field_size_limit(before))
    with pytest.raises(DataError):
        user_tables.read(content, "hostile.csv")


def test_a_fifo_and_a_folder_are_no_tables(tmp_path):
    os.mkfifo(tmp_path / "labels.csv")
    (tmp_path / "folder.csv").mkdir()
    for name in ("labels.csv", "folder.csv"):
        with pytest.raises(DataError, match="not a regular file"):
            user_tables.read(tmp_path / name, name)
    assert user_tables.headers(tmp_path / "labels.csv") == []
