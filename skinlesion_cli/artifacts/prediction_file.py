"""A prediction table on disk, while it grows and when it is complete.

Rows are appended to `<output>.partial` as they are made, whole batches at a time; the file takes its final
name when the last row is in it. `<output>.partial.run` records what the rows were made with, so that only the
same run resumes them. A shard keeps that record beside it, as `<output>.shard`, for merging.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from skinlesion_cli.artifacts import output_checks
from skinlesion_cli.artifacts.files import atomic_file, atomic_write, exclusive, replace_file
from skinlesion_cli.artifacts.own_files import is_prediction_table
from skinlesion_cli.artifacts.prediction_columns import FORMATS, ColumnSet, Row, json_text
from skinlesion_cli.errors import ArtifactError, SkinLesionError, UsageError

_SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_GROUP_ROWS = 10_000


def format_of(output: Path, wanted: str | None = None) -> str:
    """The format to write: the one asked for, or by the file's suffix.

    Raises
    ------
    UsageError : no such format, an unknown suffix, or Parquet without pyarrow.
    """
    kind = wanted or _SUFFIXES.get(output.suffix.lower())
    if kind not in FORMATS:
        raise UsageError(
            f"no table format for {wanted or output.name}",
            "Name the output .csv, .jsonl or .parquet, or give --format.",
        )
    if kind == "parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise UsageError(
                "writing Parquet needs pyarrow", "Run `pip install 'skinlesion[parquet]'`, or write CSV."
            ) from None
    return kind


class StreamSink:
    """Rows as JSON lines on a stream, each batch at once."""

    def __init__(self, stream: IO[bytes], table: ColumnSet) -> None:
        self.stream, self.table = stream, table

    def write(self, rows: Iterable[Row]) -> None:
        self.stream.write(b"".join(self.table.encode(row, "jsonl") for row in rows))
        self.stream.flush()


@dataclass
class PartialFile:
    """An unfinished table, locked for this process."""

    output: Path
    kind: str
    table: ColumnSet
    run: dict[str, Any]
    file: IO[bytes]

    @property
    def _header(self) -> bytes:
        return self.table.header(line_format(self.kind))

    def write(self, rows: Iterable[Row]) -> None:
        data = b"".join(self.table.encode(row, line_format(self.kind)) for row in rows)
        with self._write_errors_named():
            self.file.write(data)
            self.file.flush()

    def write_line(self, row: Row) -> None:
        """Append one row without pushing it to the disk at once."""
        with self._write_errors_named():
            self.file.write(self.table.encode(row, line_format(self.kind)))

    @contextmanager
    def _write_errors_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SkinLesionError(
                f"cannot write {self.output.name}: {error.strerror or error}",
                f"Free some space and run it again: with --resume, predict keeps the rows in "
                f"{partial_path(self.output).name}.",
            ) from error

    def finished_rows(self) -> Iterator[dict[str, Any]]:
        """Rows of an earlier run, in order; half a line at the end is cut off."""
        self.file.seek(0)
        header = self._header
        if self.file.read(len(header)) != header:
            # The process ended between creating the file and its first line.
            self.file.seek(0)
            self.file.truncate()
            self.file.write(header)
            return
        end = len(header)
        for line in self.file:
            if not line.endswith(b"\n"):
                break
            yield self.table.decode(line, line_format(self.kind))
            end += len(line)
        self.file.seek(end)
        self.file.truncate()

    def keep(self, rows: int) -> None:
        """Cut everything after the first `rows` rows."""
        start = len(self._header)
        self.file.seek(start)
        self.file.truncate(start + sum(len(line) for line in islice(self.file, rows)))
        self.file.seek(0, os.SEEK_END)

    def finish(self, inputs: Mapping[str, Any] | None = None) -> None:
        """Close the file and give the whole table its final name; `inputs` is recorded for a shard."""
        with self._write_errors_named():
            self.file.flush()
            os.fsync(self.file.fileno())
            if inputs is not None:
                record = {**self.run, "inputs": dict(inputs)}
                atomic_write(shard_path(self.output), (json.dumps(record, indent=1) + "\n").encode())
            if self.kind == "parquet":
                self.file.seek(0)
                rows = (self.table.decode(line, "jsonl") for line in self.file)
                write_parquet(self.output, rows, self.table)
            # Windows renames and removes no file that is open.
            self.file.close()
            if self.kind == "parquet":
                partial_path(self.output).unlink()
            else:
                replace_file(partial_path(self.output), self.output)
            run_path(self.output).unlink(missing_ok=True)


def line_format(kind: str) -> str:
    """Parquet cannot grow row by row: it grows as JSON lines and is converted when whole."""
    return "csv" if kind == "csv" else "jsonl"


def partial_path(output: Path) -> Path:
    return output.with_name(f"{output.name}.partial")


def run_path(output: Path) -> Path:
    return output.with_name(f"{output.name}.partial.run")


def shard_path(output: Path) -> Path:
    return output.with_name(f"{output.name}.shard")


def check_output(output: Path, inputs: Iterable[str | Path]) -> bool:
    """Refuse an output that would replace anything but a table of predictions;
    see `output_checks.check_file`.
    """
    for path in (partial_path(output), run_path(output), shard_path(output)):
        output_checks.refuse_special(path)
    partial = partial_path(output)
    unfinished = partial.is_file() and not partial.is_symlink() and partial.stat().st_size
    if unfinished and not is_prediction_table(partial):
        raise UsageError(
            f"{partial} is there already, and holds no rows of predictions",
            "Choose another --output; nothing was changed.",
        )
    return output_checks.check_file(output, is_prediction_table, "a table of predictions", inputs)


@contextmanager
def open_partial(
    output: Path, kind: str, table: ColumnSet, run: Mapping[str, Any], *, resume: bool, overwrite: bool
) -> Iterator[PartialFile]:
    """The unfinished table of an output, for one process at a time.

    Parameters
    ----------
    run : what decides the rows, in JSON types; an earlier run is only resumed where all of it is the same.
    resume : keep the rows of an earlier run, if there are any. overwrite : drop them.

    Raises
    ------
    SkinLesionError : another process holds the output, or the folder cannot be written.
    UsageError : there are unfinished rows, and neither was asked for.
    ArtifactError : they were made with something else; names both values.
    """
    with exclusive(output.resolve().parent, f"predict-{output.name}"):
        partial = partial_path(output)
        if partial.is_symlink():
            raise SkinLesionError(
                f"{partial} is a link and is not followed",
                "Remove the link if you know where it comes from.",
            )
        if partial.exists() and not resume and not overwrite:
            raise UsageError(
                f"{partial.name} holds the rows of an unfinished run",
                "Add --resume to continue it, or --overwrite to start again.",
            )
        if partial.exists() and resume:
            _require_same_run(output, run)
        try:
            if not resume:
                partial.unlink(missing_ok=True)
            if not partial.exists():
                atomic_write(run_path(output), (json.dumps(dict(run), indent=1) + "\n").encode())
                partial.write_bytes(table.header(line_format(kind)))
            file = partial.open("r+b")
            file.seek(0, os.SEEK_END)
        except OSError as error:
            raise SkinLesionError(
                f"cannot write {partial}: {error.strerror or error}", "Choose another --output."
            ) from error
        try:
            yield PartialFile(output, kind, table, dict(run), file)
        except BaseException:
            # What a full disk refused is still in the buffer: closing tries it again,
            # and must not speak last.
            with suppress(OSError):
                file.close()
            _forget_without_rows(output, len(table.header(line_format(kind))))
            raise
        file.close()


def _forget_without_rows(output: Path, header_bytes: int) -> None:
    """A run that failed before its first row leaves nothing to resume."""
    partial = partial_path(output)
    if partial.exists() and partial.stat().st_size <= header_bytes:
        partial.unlink()
        run_path(output).unlink(missing_ok=True)


def _require_same_run(output: Path, run: Mapping[str, Any]) -> None:
    hint = "Use the same model and options, or start again with --overwrite."
    try:
        earlier = json.loads(run_path(output).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{partial_path(output).name} cannot be resumed: its record is unreadable ({error})", hint
        ) from None
    now = json.loads(json.dumps(dict(run)))
    differing = [
        _difference(key, earlier.get(key), now.get(key))
        for key in sorted({*earlier, *now})
        if earlier.get(key) != now.get(key)
    ]
    if differing:
        raise ArtifactError(
            f"{partial_path(output).name} was started with other settings; " + "; ".join(differing), hint
        )


def _difference(key: str, then: Any, now: Any) -> str:
    if key == "columns" and isinstance(then, list) and isinstance(now, list):
        then, now = [name for name in then if name not in now], [name for name in now if name not in then]
    return f"{key}: {then!r} then, {now!r} now"


def write_parquet(output: Path, rows: Iterator[Row], table: ColumnSet) -> None:
    """Rows as Parquet, a group at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {
        "text": pa.string(),
        "integer": pa.int64(),
        "float32": pa.float32(),
        "flag": pa.bool_(),
        "json": pa.string(),
    }
    objects = [column.name for column in table.columns if column.kind == "json"]

    def cells(row: Row) -> dict[str, Any]:
        texts = {name: None if row[name] is None else json_text(row[name]) for name in objects}
        return {**row, **texts}

    schema = pa.schema([(column.name, kinds[column.kind]) for column in table.columns])
    with atomic_file(output) as file, pq.ParquetWriter(file, schema) as writer:
        while group := list(islice(rows, _GROUP_ROWS)):
            writer.write_table(pa.Table.from_pylist([cells(row) for row in group], schema=schema))


def read_rows(path: Path, kind: str, table: ColumnSet) -> Iterator[dict[str, Any]]:
    """Rows of a complete table, in order, under today's names; text is as it was before CSV escaping.

    Raises
    ------
    ArtifactError : it is not there, or no table of predictions by this version or an earlier one.
    """
    if kind == "parquet":
        yield from _read_parquet(path, table)
        return
    try:
        with path.open("rb") as file:
            columns = table.read_header(file.readline()) if kind == "csv" else None
            for line in file:
                yield table.decode(line, kind, columns)
    except ArtifactError as error:
        raise ArtifactError(f"{path.name} is not a table of predictions: {error.message}") from None
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror or error}") from None


def _read_parquet(path: Path, table: ColumnSet) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            try:
                table.recognise(file.schema_arrow.names)
                for batch in file.iter_batches():
                    yield from map(table.renamed, batch.to_pylist())
            except ValueError as error:
                raise ArtifactError(f"{path.name} is not a table of predictions: {error}") from None
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from None
