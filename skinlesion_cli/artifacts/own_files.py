"""What this toolkit wrote, known by its content: the files that an output may replace."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

# Whether a file is an earlier result of one kind.
Recogniser = Callable[[Path], bool]

# The first columns of every version of the table of predictions.
_FIRST_COLUMNS = ("row", "id", "status", "error")
_MAX_LINE_BYTES = 1 << 20
_MAX_JSON_BYTES = 64 << 20
_HEAD_BYTES = 4096
# Ends every PDF that this toolkit wrote; to a reader of PDF it is a comment.
PDF_MARK = b"%skinlesion\n"


def is_prediction_table(path: Path) -> bool:
    """Whether a file is a table of predictions, by this or an earlier version, in any of the formats."""
    try:
        with path.open("rb") as file:
            line = file.readline(_MAX_LINE_BYTES)
    except OSError:
        return False
    if line.startswith(b"PAR1"):
        return _first_columns_of_parquet(path) == _FIRST_COLUMNS
    if line.startswith(b"{"):
        try:
            return tuple(json.loads(line))[: len(_FIRST_COLUMNS)] == _FIRST_COLUMNS
        except (ValueError, RecursionError):
            return False
    return line.startswith(",".join(_FIRST_COLUMNS).encode() + b",")


def _first_columns_of_parquet(path: Path) -> tuple[str, ...] | None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return None
    try:
        return tuple(pq.read_schema(path).names[: len(_FIRST_COLUMNS)])
    except (OSError, pa.ArrowException, UnicodeDecodeError):
        return None


def is_overlay(path: Path) -> bool:
    """Whether a file is an overlay or a stored map: both say so near their start."""
    head = _head(path)
    if head.startswith(b"\x89PNG"):
        return b"skinlesion:" in head
    return head.startswith(b"PK") and b"map.npy" in head[:64]


def is_page(path: Path) -> bool:
    """Whether a file is a page that this toolkit wrote; earlier versions are known by their first lines."""
    head = _head(path)
    return b'<meta name="generator" content="skinlesion' in head or (
        b"Content-Security-Policy" in head
        and (b"<title>Predictions of " in head or b"<title>Evaluation of " in head)
    )


def is_pdf(path: Path) -> bool:
    """Whether a file is a PDF that this toolkit wrote."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"%PDF":
                return False
            file.seek(-len(PDF_MARK), 2)
            return file.read() == PDF_MARK
    except OSError:
        return False


def is_artifact(kind: str) -> Recogniser:
    """Recognises an artifact's JSON file of this kind."""

    def recognise(path: Path) -> bool:
        stated = _json_object(path)
        return stated.get("format") == "skinlesion-artifact" and stated.get("kind") == kind

    return recognise


def has_header(columns: Sequence[str]) -> Recogniser:
    """Recognises a CSV whose header begins with these columns."""
    return lambda path: _head(path).startswith(",".join(columns).encode())


def files_of_evaluation(folder: Path) -> Recogniser:
    """Recognises what an earlier evaluation wrote into its folder."""
    path = folder / "evaluation.json"
    stated = _json_object(path)
    own = is_artifact("evaluation")(path) if stated else False
    body = stated.get("body") if own else None
    names = body.get("files", {}) if isinstance(body, dict) else {}
    return lambda file: own and (file.name == path.name or file.name in names or is_page(file))


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError:
        return b""


def _json_object(path: Path) -> dict[str, object]:
    try:
        if not path.is_file() or path.stat().st_size > _MAX_JSON_BYTES:
            return {}
        stated = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return stated if isinstance(stated, dict) else {}
