"""Tables inside artifacts: CSV in UTF-8, every cell text, no type is guessed.

An id such as `NA`, `001` or `1e5` is kept as it is; an empty cell is the empty string.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from skinlesion_cli.artifacts import prediction_columns
from skinlesion_cli.errors import ArtifactError, DataError


def to_csv(table: pd.DataFrame) -> bytes:
    """The table as CSV bytes, the same on every machine."""
    content: bytes = table.to_csv(index=False, lineterminator="\n", float_format=None).encode("utf-8")
    return content


def read_csv(source: Path | bytes, name: str) -> pd.DataFrame:
    """Read a CSV with every cell as text.

    Raises
    ------
    DataError : it cannot be read as a CSV table.
    """
    try:
        table = pd.read_csv(
            io.BytesIO(source) if isinstance(source, bytes) else source,
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
            # pandas would unpack by the file's name, without a bound on the size of the result.
            compression=None,
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{name} cannot be read as a CSV table: {error}") from None
    except OSError as error:
        # For example a folder, or a missing file.
        raise DataError(f"{name} cannot be read: {error.strerror or error}") from None
    if not isinstance(table.index, pd.RangeIndex):
        # pandas would take the first column for row names, and each cell for that of its neighbour.
        raise DataError(f"{name} cannot be read as a CSV table: its rows have more cells than its header")
    return table


def require_columns(table: pd.DataFrame, columns: Sequence[str], name: str) -> None:
    """Refuse a table that lacks columns, naming all of them."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ArtifactError(f"{name} lacks the columns {', '.join(missing)}")


def floats(table: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """float32 array of shape (n_rows, n_columns); exact for numbers written with `shortest`."""
    result: np.ndarray = table[list(columns)].to_numpy(dtype=np.float32)
    return result


def shortest(values: np.ndarray) -> list[str]:
    """The shortest decimal text of each value that reads back as the same float32."""
    return [prediction_columns.shortest(value) for value in values.astype(np.float32)]
