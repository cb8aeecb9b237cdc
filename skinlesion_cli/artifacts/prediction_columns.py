"""Rows of a prediction table as lines of CSV or JSON, and back.

Which columns there are is the business of `inference.prediction`, where a prediction is defined; here is how
a cell of each kind is written and read. Every row is one line in every format. CSV cells that a spreadsheet
would take for a formula are escaped when they are written and unescaped when they are read, both here:
everywhere else an id is the true id.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from skinlesion_cli.errors import ArtifactError

# `json`: a JSON object; its text in CSV and Parquet.
Kind = Literal["text", "integer", "float32", "flag", "json"]
Row = Mapping[str, Any]
FORMATS = ("csv", "jsonl", "parquet")
_TYPES: Mapping[Kind, tuple[type, ...]] = {
    "text": (str,),
    "integer": (int,),
    "float32": (int, float),
    "flag": (bool,),
    "json": (dict,),
}
# A spreadsheet takes a cell that begins with one of these for a formula (OWASP, CSV injection).
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")

# A list may name what is no path: a name of 64 kB, which is an id of six times as many characters where none
# of its bytes is text. The limit of the `csv` module, 128 kB, would refuse the row when it is read again.
csv.field_size_limit(max(csv.field_size_limit(), 1 << 20))


@dataclass(frozen=True)
class Column:
    """One column. A cell that does not apply is empty text,
    or null where the kind is not `text` (empty in CSV).

    Tables of earlier versions are read too: `older_names` are what they called this column, and a column that
    is not `required` may be absent from them.
    """

    name: str
    kind: Kind
    meaning: str
    older_names: tuple[str, ...] = ()
    required: bool = True


def shortest(value: float | np.floating) -> str:
    """The shortest decimal text that reads back as the same float32."""
    return np.format_float_positional(np.float32(value), unique=True, trim="0")


def escape_formula(text: str) -> str:
    """A CSV cell that no spreadsheet takes for a formula: an apostrophe is put before it.

    >>> escape_formula("=1+1"), escape_formula("'=1+1"), escape_formula("a.jpg")
    ("'=1+1", "''=1+1", 'a.jpg')
    """
    return f"'{text}" if text.lstrip("'").startswith(_FORMULA_STARTS) else text


def unescape_formula(cell: str) -> str:
    """The text that `escape_formula` made this cell of.

    >>> unescape_formula("'=1+1"), unescape_formula("'a'.jpg")
    ('=1+1', "'a'.jpg")
    """
    return cell[1:] if cell.startswith("'") and escape_formula(cell[1:]) == cell else cell


@dataclass(frozen=True)
class ColumnSet:
    """The columns of a table, in order, and how its rows are written and read."""

    columns: tuple[Column, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @cached_property
    def _by_any_name(self) -> dict[str, Column]:
        return {name: column for column in self.columns for name in (column.name, *column.older_names)}

    def empty_row(self) -> dict[str, Any]:
        """A row in which nothing applies."""
        return {column.name: "" if column.kind == "text" else None for column in self.columns}

    def header(self, kind: str) -> bytes:
        """What comes before the first row; `kind` as in `encode`."""
        return (",".join(self.names) + "\n").encode() if kind == "csv" else b""

    def encode(self, row: Row, kind: str) -> bytes:
        """One row as one line. `kind`: `csv`, or `jsonl` (also what Parquet is made from)."""
        if kind == "csv":
            text = io.StringIO()
            cells = [_csv_cell(row[column.name], column.kind) for column in self.columns]
            csv.writer(text, lineterminator="\n").writerow(cells)
            return text.getvalue().encode()
        values = {column.name: _json_value(row[column.name], column.kind) for column in self.columns}
        return (json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n").encode()

    def read_header(self, line: bytes) -> tuple[Column, ...]:
        """The columns of a CSV file whose first line this is, in the order of the file.

        Raises
        ------
        ArtifactError : it is no table with these columns, under today's names or older ones.
        """
        try:
            (names,) = csv.reader([line.decode().rstrip("\n")], strict=True)
            return self.recognise(names)
        except (ValueError, csv.Error) as error:
            raise _no_table(line, error) from None

    def recognise(self, names: Iterable[str]) -> tuple[Column, ...]:
        """The column behind each name.

        Raises
        ------
        ValueError : a name is unknown or there twice, or a column that every version wrote is missing.
        """
        listed = tuple(names)
        unknown = [name for name in listed if name not in self._by_any_name]
        if unknown:
            raise ValueError(f"unknown columns: {', '.join(unknown)}")
        found = tuple(self._by_any_name[name] for name in listed)
        missing = [column.name for column in self.columns if column.required and column not in found]
        if missing or len(set(found)) < len(found):
            raise ValueError(f"missing columns: {', '.join(missing)}" if missing else "a column occurs twice")
        return found

    def decode(self, line: bytes, kind: str, columns: Sequence[Column] | None = None) -> dict[str, Any]:
        """A line that `encode` wrote, as typed values under today's names.

        Parameters
        ----------
        columns : of the CSV file, from `read_header`; None: those of this version.

        Raises
        ------
        ArtifactError : it is no whole row with these columns.
        """
        try:
            text = line.decode()
            if not text.endswith("\n"):
                raise ValueError("the line is incomplete")
            if kind == "csv":
                (cells,) = csv.reader([text.rstrip("\n")], strict=True)
                read = {
                    column.name: _parsed(cell, column.kind)
                    for column, cell in zip(columns or self.columns, cells, strict=True)
                }
                return self.empty_row() | read
            values = json.loads(text)
            if not isinstance(values, dict):
                raise ValueError("not a JSON object")
            return self.renamed(values)
        except (ValueError, csv.Error) as error:
            raise _no_table(line, error) from None

    def renamed(self, values: Row) -> dict[str, Any]:
        """Typed values under today's names, of a row that may have older ones; see `recognise`.

        Raises
        ------
        ValueError : as `recognise`, or a value is not of its column's kind.
        """
        columns = self.recognise(values)
        return self.empty_row() | {
            column.name: _checked(value, column)
            for column, value in zip(columns, values.values(), strict=True)
        }


def _no_table(line: bytes, error: Exception) -> ArtifactError:
    return ArtifactError(f"this is not a row of a prediction table: {line[:80]!r} ({error})")


def json_text(value: Any) -> str:
    """A JSON object on one line."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _checked(value: Any, column: Column) -> Any:
    if value is None:
        return "" if column.kind == "text" else None
    if column.kind == "json" and isinstance(value, str):  # as Parquet keeps it
        value = json.loads(value)
    if not isinstance(value, _TYPES[column.kind]) or (isinstance(value, bool) and column.kind != "flag"):
        raise ValueError(f"{column.name} is {value!r}, which is not {column.kind}")
    return value


def _csv_cell(value: Any, kind: Kind) -> str:
    if value is None:
        return ""
    if kind == "float32":
        return shortest(value)
    if kind == "flag":
        return "true" if value else "false"
    if kind == "json":
        return json_text(value)
    return escape_formula(str(value)) if kind == "text" else str(int(value))


def _json_value(value: Any, kind: Kind) -> Any:
    if value is None or kind in ("text", "json"):
        return value
    if kind == "float32":
        # The shortest text of the float32, read as a double, prints as that same text.
        return float(shortest(value))
    return bool(value) if kind == "flag" else int(value)


def _parsed(cell: str, kind: Kind) -> Any:
    if kind == "text":
        return unescape_formula(cell)
    if cell == "":
        return None
    if kind == "flag":
        return cell == "true"
    if kind == "json":
        return json.loads(cell)
    return int(cell) if kind == "integer" else float(cell)
