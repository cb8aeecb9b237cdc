"""Tables that people wrote: any usual encoding, separator and header; what is not understood is named.

Used by every source of labelled images and for predictions and truth from elsewhere. Cells stay text: an id
such as `NA`, `001` or `1e5` stays as it is.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from skinlesion_cli.errors import DataError, name_items
from skinlesion_cli.taxonomy import plain_name
from skinlesion_cli.taxonomy.class_list import ClassList

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".tab", ".txt"})
# Column -> headers that mean it, compared by `taxonomy.plain_name`, the surest first.
COLUMN_NAMES: Mapping[str, tuple[str, ...]] = {
    "image": (
        "image",
        "image path",
        "imagepath",
        "path",
        "filepath",
        "file path",
        "filename",
        "file name",
        "image file",
        "image filename",
        "file",
        "image name",
        "image id",
        "imageid",
        "isic id",
        "isic",
        "img",
        "img id",
        "id",
    ),
    "label": (
        "label",
        "labels",
        "dx",
        "diagnosis",
        "diagnostic",
        "class",
        "class name",
        "classname",
        "category",
        "target",
        "ground truth",
        "groundtruth",
        "lesion type",
        "diagnosis name",
        "true label",
    ),
    "lesion_id": ("lesion id", "lesionid", "lesion"),
    "patient_id": ("patient id", "patientid", "patient", "subject id", "subject", "participant id"),
    "age": ("age", "age years", "age approx", "patient age"),
    "sex": ("sex", "gender", "patient sex"),
    "site": (
        "site",
        "localization",
        "localisation",
        "location",
        "anatom site general",
        "anatom site general challenge",
        "anatomical site",
        "anatomic site",
        "body site",
    ),
    "part": ("part", "split", "subset", "partition"),
    "source": ("source", "dataset"),
}
_SEPARATORS = (",", ";", "\t", "|")
_MAX_BYTES = 512 << 20
_MAX_COLUMNS = 2000
# The limit of Python's csv module, which other libraries raise for the whole process.
_MAX_CELL_CHARACTERS = 131_072
# Rows may be shorter than the header: a small file can stand for a table that fills the memory.
_MAX_CELLS = 20_000_000


@dataclass(frozen=True)
class UserTable:
    """A table as it was written.

    `cells` has a column for each header, all text, in the order of the file; `separator` is what was found
    between its cells. `encoding` is one of utf-8, utf-16, utf-32 and cp1252.
    """

    name: str
    cells: pd.DataFrame
    encoding: str
    separator: str

    def headers_of(self, column: str, names: Mapping[str, Sequence[str]] = COLUMN_NAMES) -> list[str]:
        """The headers of this table that mean `column`, the surest first."""
        by_plain_name: dict[str, list[str]] = {}
        for header in self.cells.columns:
            by_plain_name.setdefault(plain_name(header), []).append(header)
        return [header for name in names[column] for header in by_plain_name.get(name, [])]

    def class_headers(self, classes: ClassList) -> dict[str, str]:
        """Class -> header, in the order of the list, where the table has a column for each class of it, else
        empty.
        """
        for prefix in ("p ", "prob ", "probability ", ""):
            headers = {
                classes.class_named(plain_name(header).removeprefix(prefix)): header
                for header in self.cells.columns
                if plain_name(header).startswith(prefix)
            }
            if all(code in headers for code in classes.codes):
                return {code: headers[code] for code in classes.codes}
        return {}


def read(source: Path | bytes, name: str, *, keep: Callable[[str], bool] = lambda header: True) -> UserTable:
    """Read a table: encoding and separator are found out, the first line is the header.

    Parameters
    ----------
    keep : whether a column of this header is needed; large tables of the ISIC archive have many that are not.

    Raises
    ------
    DataError : it is too large, of no known encoding, empty, or rows have more cells than the header; the
        lines are named.
    """
    text, encoding = _decoded(_content(source, name), name)
    separator, text = _separator(text)
    lines = _rows(text, separator)
    try:
        first = next((row for _, row in lines if any(row)), [])
        if not first:
            raise DataError(f"{name} cannot be read as a CSV table: it is empty")
        if len(first) > _MAX_COLUMNS:
            raise DataError(f"{name} cannot be read as a CSV table: it has {len(first):,} columns")
        named = _headers(first)
        kept = [position for position, header in enumerate(named) if keep(header)]
        rows, long = [], []
        # Most cells of a large table repeat others; one text for all of them is a fraction of the memory.
        texts: dict[str, str] = {}
        for line, row in lines:
            if len(row) > len(first) or any(row[len(named) :]):
                long.append(line)
            elif any(row):
                # Spreadsheets cut empty cells off at the end of a row.
                cells = [row[position].strip() if position < len(row) else "" for position in kept]
                rows.append([texts.setdefault(cell, cell) for cell in cells])
                if len(rows) * len(kept) > _MAX_CELLS:
                    raise DataError(
                        f"{name} has more than {_MAX_CELLS:,} cells", "Remove columns that are not needed."
                    )
    except csv.Error as error:
        raise DataError(f"{name} cannot be read as a CSV table: {error}") from None
    if long:
        raise DataError(
            f"{name} cannot be read as a CSV table: lines with more cells than its header: "
            f"{name_items(long)}",
            f"Cells are separated by {separator!r}; a cell that holds one needs quotes around it.",
        )
    # Object columns: a pandas string type would turn cells into something other than str.
    table = pd.DataFrame(rows, columns=[named[position] for position in kept], dtype=object)
    return UserTable(name, table, encoding, separator)


def _rows(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Rows with the number of the line that each ends in.

    Raises
    ------
    csv.Error : a cell is too long.
    """
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    for row in lines:
        if row and len(max(row, key=len)) > _MAX_CELL_CHARACTERS:
            raise csv.Error(
                f"a cell of line {lines.line_num} has more than {_MAX_CELL_CHARACTERS:,} characters"
            )
        yield lines.line_num, row


def headers(path: Path) -> list[str]:
    """The headers of a file that may be a table; none where it is not readable as one."""
    try:
        if not path.is_file() or path.suffix.lower() not in TABLE_SUFFIXES:
            return []
        with path.open("rb") as file:
            start = file.read(1 << 16)
        text, _ = _decoded(start, path.name, cut=True)
        separator, text = _separator(text)
        return _headers(next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), []))
    except (OSError, DataError, csv.Error):
        return []


def means(header_names: Sequence[str], column: str) -> bool:
    """Whether one of the headers means this column of `COLUMN_NAMES`."""
    plain = {plain_name(header) for header in header_names}
    return any(name in plain for name in COLUMN_NAMES[column])


def numbers(cells: pd.Series, separator: str = ",") -> pd.Series:
    """float64, NaN for what is not a number. With another separator than a comma, `0,5` is a half."""
    points = cells if separator == "," else with_decimal_points(cells)
    return pd.to_numeric(points, errors="coerce").astype(float)


def with_decimal_points(cells: pd.Series) -> pd.Series:
    """Cells in which `0,5` is written `0.5`."""
    return cells.str.replace(r"^([+-]?\d*),(\d+)$", r"\1.\2", regex=True)


def _content(source: Path | bytes, name: str) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        if source.exists() and not source.is_file():
            raise DataError(f"{name} cannot be read: it is not a regular file")
        if source.stat().st_size > _MAX_BYTES:
            raise DataError(f"{name} is larger than {_MAX_BYTES >> 20} MiB, which no table of labels needs")
        return source.read_bytes()
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror or error}") from None


def _decoded(content: bytes, name: str, *, cut: bool = False) -> tuple[str, str]:
    """Text and encoding; with `cut`, the content may end within a character."""
    if content.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        encoding = "utf-32"
    elif content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif (nulls := _null_side(content)) is not None:
        encoding = nulls
    else:
        encoding = "utf-8-sig"
    errors = "ignore" if cut else "strict"
    try:
        if encoding == "utf-8-sig" and cut:
            try:
                return content.decode(encoding), "utf-8"
            except UnicodeDecodeError as error:
                # Only a last character that was cut in two is to be passed over.
                if error.start < len(content) - 3:
                    return content.decode("cp1252", errors), "cp1252"
        return content.decode(encoding, errors), encoding.removesuffix("-sig").removesuffix("-le")[:6]
    except UnicodeDecodeError:
        pass
    try:
        if encoding != "utf-8-sig":
            raise DataError(f"{name} cannot be read as {encoding.upper()}")
        return content.decode("cp1252"), "cp1252"
    except UnicodeDecodeError:
        raise DataError(
            f"{name} is neither UTF-8, UTF-16 nor Windows-1252", "Save it as `CSV UTF-8`."
        ) from None


def _null_side(content: bytes) -> str | None:
    """UTF-16 without a mark at its start: plain letters with a NUL byte before or after each."""
    start = content[:200]
    if len(start) >= 4 and not any(start[1::2]) and all(start[0::2]):
        return "utf-16-le"
    if len(start) >= 4 and not any(start[0::2]) and all(start[1::2]):
        return "utf-16-be"
    return None


def _separator(text: str) -> tuple[str, str]:
    """The separator, and the text without a line `sep=;` that tells it (as Excel writes)."""
    first, *rest = re.split(r"\r\n?|\n", text.lstrip("\r\n"), maxsplit=1)
    if first.strip(" ").lower().startswith("sep=") and len(first.strip(" ")) <= 5:
        return (first.strip(" ")[4:] or "\t"), "".join(rest)
    known = {name for names in COLUMN_NAMES.values() for name in names}

    def fit(separator: str) -> tuple[int, int]:
        if first.count(separator) >= _MAX_COLUMNS:
            return 0, _MAX_COLUMNS
        try:
            cells = next(csv.reader([first], delimiter=separator), [])
        except csv.Error:
            cells = []
        understood = sum(plain_name(cell) in known for cell in cells)
        return (understood if len(cells) > 1 else 0, len(cells))

    # max takes the first of equals: the comma, where nothing tells.
    return max(_SEPARATORS, key=fit), text


def _headers(cells: Sequence[str]) -> list[str]:
    """The headers, each different: a nameless one is `column 1`, a repeated one gets its position too."""
    named = [cell.strip() for cell in cells]
    while named and not named[-1]:
        named.pop()
    return [
        header
        if header and named.index(header) == position
        else f"{header or 'column'} {position + 1}".strip()
        for position, header in enumerate(named)
    ]
