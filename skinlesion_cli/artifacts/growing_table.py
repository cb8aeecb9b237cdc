"""A table of predictions that grows in place, under its final name, while a folder is watched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skinlesion_cli.artifacts.files import atomic_write, exclusive
from skinlesion_cli.artifacts.prediction_columns import ColumnSet
from skinlesion_cli.artifacts.prediction_file import PartialFile, line_format
from skinlesion_cli.errors import ArtifactError, UsageError

FORMATS = ("csv", "jsonl")


@contextmanager
def open_growing(
    output: Path, kind: str, table: ColumnSet, same: dict[str, Any]
) -> Iterator[tuple[PartialFile, list[str]]]:
    """The table, held for this process, and the ids of its rows; half a row at its end is cut off.

    Parameters
    ----------
    kind : in `FORMATS`.
    same : columns that have to have these values in every row.

    Raises
    ------
    UsageError : Parquet, which cannot grow, or a table with other columns.
    ArtifactError : a row has another value; names both.
    SkinLesionError : another process writes to it.
    """
    if kind not in FORMATS:
        raise UsageError(f"a {kind} table cannot grow row by row", "Name the output .csv or .jsonl.")
    # It grows through a link: the file itself is what two processes must not write to.
    output = output.resolve()
    with exclusive(output.parent, f"predict-{output.name}"):
        header = table.header(line_format(kind))
        if not output.exists() or not output.stat().st_size:
            atomic_write(output, header)
        with output.open("r+b") as file:
            if file.read(len(header)) != header:
                raise UsageError(
                    f"{output} has other columns than this version writes", "Choose another --output."
                )
            growing = PartialFile(output, kind, table, {}, file)
            yield growing, [_required(output, row, same)["id"] for row in growing.finished_rows()]


def _required(output: Path, row: dict[str, Any], same: dict[str, Any]) -> dict[str, Any]:
    for name, value in same.items():
        if row[name] != value:
            raise ArtifactError(
                f"{output} has rows with {name} {row[name]}, but now it would be {value}",
                "Choose another --output: one table holds the results of one model.",
            )
    return row
