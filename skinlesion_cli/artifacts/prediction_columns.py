"""The table that prediction writes: its columns, and one row as a line of CSV or JSON.

`COLUMNS` is the one place where a column is defined; the writer, the documentation and the tests read it.
Every row is one line in every format, whatever a file is called.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from skinlesion_cli.errors import ArtifactError
from skinlesion_cli.taxonomy import CLASS_NAMES, CLASS_TITLES

Kind = Literal["text", "integer", "float32", "flag"]
Row = Mapping[str, Any]
FORMATS = ("csv", "jsonl", "parquet")


@dataclass(frozen=True)
class Column:
    """One column. A cell that does not apply is empty in CSV and null elsewhere."""

    name: str
    kind: Kind
    meaning: str


COLUMNS: tuple[Column, ...] = (
    Column("row", "integer", "position of the image in the input, from 1"),
    Column(
        "id", "text", "path below the folder that was named, or the file as named; control characters escaped"
    ),
    Column("status", "text", "`ok`, or `error`: the image could not be read"),
    Column("error", "text", "reason code and message; empty where the status is `ok`"),
    *(
        Column(f"p_{name}", "float32", f"calibrated probability of {CLASS_TITLES[name]}, 0 to 1")
        for name in CLASS_NAMES
    ),
    Column("argmax", "text", "class of the highest probability"),
    Column("decision", "text", "class after the calibrated thresholds"),
    Column("threshold_fired", "text", "class whose threshold overrode the argmax; empty where none did"),
    Column("malignant_probability", "float32", "sum of the probabilities of MEL, BCC and AKIEC, at most 1"),
    Column(
        "conformal_set", "text", "classes that stay plausible, joined by `|`; empty without conformal sets"
    ),
    Column("triage", "text", "`refer`, `review` or `routine`"),
    Column(
        "quality", "text", "checks that the image failed, joined by `|`; `ok`; empty where none was fitted"
    ),
    Column("quality_score", "float32", "worst check, 0 to 1: share of good training images that look worse"),
    Column("flagged", "flag", "the image failed a check, and was put to `review` for it"),
    Column("passes", "integer", "forward passes that were averaged, each one network at one test-time view"),
    Column("tta", "text", "mode of test-time augmentation; `(forced)` where it is not the calibrated one"),
    Column(
        "overlay", "text", "overlay of the decided class, below the folder of overlays; empty without --cam"
    ),
    Column(
        "overlay_magnitude", "float32", "maximum of that map before it was scaled, in logits; 0: all zero"
    ),
    Column("model", "text", "the ensemble's members"),
    Column("model_sha256", "text", "hash of the networks, the ensemble and the calibration together"),
)
NAMES: tuple[str, ...] = tuple(column.name for column in COLUMNS)
_KINDS = {column.name: column.kind for column in COLUMNS}
# A spreadsheet takes a cell that begins with one of these for a formula (OWASP, CSV injection).
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def empty_row() -> dict[str, Any]:
    """A row in which nothing applies."""
    return {column.name: "" if column.kind == "text" else None for column in COLUMNS}


def shortest(value: float | np.floating) -> str:
    """The shortest decimal text that reads back as the same float32."""
    return np.format_float_positional(np.float32(value), unique=True, trim="0")


def escape_formula(text: str) -> str:
    """A CSV cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def header(kind: str) -> bytes:
    """What comes before the first row."""
    return (",".join(NAMES) + "\n").encode() if kind == "csv" else b""


def encode(row: Row, kind: str) -> bytes:
    """One row as one line. `kind`: `csv`, or `jsonl` (also what Parquet is made from).

    Cells that are neutral already, as in decoded CSV, stay as they are.
    """
    if kind == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow([_csv_cell(row[c.name], c.kind) for c in COLUMNS])
        return text.getvalue().encode()
    values = {column.name: _json_value(row[column.name], column.kind) for column in COLUMNS}
    return (json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n").encode()


def decode(line: bytes, kind: str) -> dict[str, Any]:
    """A line that `encode` wrote, as typed values; text of CSV stays neutralised.

    Raises
    ------
    ArtifactError : it is no whole row with these columns.
    """
    try:
        text = line.decode()
        if not text.endswith("\n"):
            raise ValueError("the line has no end")
        if kind == "csv":
            (cells,) = csv.reader([text.rstrip("\n")], strict=True)
            return {c.name: _parsed(cell, c.kind) for c, cell in zip(COLUMNS, cells, strict=True)}
        values = json.loads(text)
        if not isinstance(values, dict) or tuple(values) != NAMES:
            raise ValueError("other columns")
        return values
    except (ValueError, csv.Error) as error:
        raise ArtifactError(f"this is no row of a prediction table: {line[:80]!r} ({error})") from None


def is_same_id(stored: str, identity: str, kind: str) -> bool:
    """Whether a decoded row is the one of this input."""
    return stored == (escape_formula(identity) if kind == "csv" else identity)


def _csv_cell(value: Any, kind: Kind) -> str:
    if value is None:
        return ""
    if kind == "float32":
        return shortest(value)
    if kind == "flag":
        return "true" if value else "false"
    return escape_formula(str(value)) if kind == "text" else str(int(value))


def _json_value(value: Any, kind: Kind) -> Any:
    if value is None or kind == "text":
        return value
    if kind == "float32":
        # The shortest text of the float32, read as a double, prints as that same text.
        return float(shortest(value))
    return bool(value) if kind == "flag" else int(value)


def _parsed(cell: str, kind: Kind) -> Any:
    if kind == "text":
        return cell
    if cell == "":
        return None
    if kind == "flag":
        return cell == "true"
    return int(cell) if kind == "integer" else float(cell)
