"""A prediction table on disk while it grows, and when it is whole.

Rows are appended to `<output>.partial` as they are made, whole batches at a time; the file takes its final name
when the last row is in it. `<output>.partial.run` says what the rows were made with, so that only the same run
goes on with them. A shard keeps that record beside it, as `<output>.shard`, for merging.
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

from skinlesion_cli.artifacts import prediction_columns
from skinlesion_cli.artifacts.files import atomic_file, atomic_write, exclusive
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
    if kind not in prediction_columns.FORMATS:
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

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream

    def write(self, rows: Iterable[prediction_columns.Row]) -> None:
        self.stream.write(b"".join(prediction_columns.encode(row, "jsonl") for row in rows))
        self.stream.flush()


@dataclass
class PartialFile:
    """An unfinished table, locked for this process."""

    output: Path
    kind: str
    run: dict[str, Any]
    file: IO[bytes]

    def write(self, rows: Iterable[prediction_columns.Row]) -> None:
        data = b"".join(prediction_columns.encode(row, line_format(self.kind)) for row in rows)
        with self._refusals_told():
            self.file.write(data)
            self.file.flush()

    def write_line(self, row: prediction_columns.Row) -> None:
        """Append one row without pushing it to the disk at once."""
        with self._refusals_told():
            self.file.write(prediction_columns.encode(row, line_format(self.kind)))

    @contextmanager
    def _refusals_told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SkinLesionError(
                f"cannot write {self.output.name}: {error.strerror or error}",
                f"Make room and run it again; predict goes on with the rows in {partial_path(self.output).name} "
                "when given --resume.",
            ) from error

    def finished_rows(self) -> Iterator[dict[str, Any]]:
        """Rows of an earlier run, in order; half a line at the end is cut off."""
        self.file.seek(0)
        header = prediction_columns.header(line_format(self.kind))
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
            yield prediction_columns.decode(line, line_format(self.kind))
            end += len(line)
        self.file.seek(end)
        self.file.truncate()

    def keep(self, rows: int) -> None:
        """Cut everything after the first `rows` rows."""
        start = len(prediction_columns.header(line_format(self.kind)))
        self.file.seek(start)
        self.file.truncate(start + sum(len(line) for line in islice(self.file, rows)))
        self.file.seek(0, os.SEEK_END)

    def finish(self, inputs: Mapping[str, Any] | None = None) -> None:
        """Give the whole table its final name; `inputs` is recorded for a shard."""
        with self._refusals_told():
            self.file.flush()
            os.fsync(self.file.fileno())
            if inputs is not None:
                record = {**self.run, "inputs": dict(inputs)}
                atomic_write(shard_path(self.output), (json.dumps(record, indent=1) + "\n").encode())
            if self.kind == "parquet":
                self.file.seek(0)
                write_parquet(self.output, (prediction_columns.decode(line, "jsonl") for line in self.file))
                partial_path(self.output).unlink()
            else:
                os.replace(partial_path(self.output), self.output)
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


@contextmanager
def open_partial(
    output: Path, kind: str, run: Mapping[str, Any], *, resume: bool, overwrite: bool
) -> Iterator[PartialFile]:
    """The unfinished table of an output, for one process at a time.

    Parameters
    ----------
    run : what decides the rows, in JSON types; an earlier run is only gone on with where all of it is the same.
    resume : go on with the rows of an earlier run, if there are any. overwrite : drop them.

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
                "Add --resume to go on with it, or --overwrite to begin again.",
            )
        if partial.exists() and resume:
            _require_same_run(output, run)
        try:
            if not resume:
                partial.unlink(missing_ok=True)
            if not partial.exists():
                atomic_write(run_path(output), (json.dumps(dict(run), indent=1) + "\n").encode())
                partial.write_bytes(prediction_columns.header(line_format(kind)))
            file = partial.open("r+b")
            file.seek(0, os.SEEK_END)
        except OSError as error:
            raise SkinLesionError(
                f"cannot write {partial}: {error.strerror or error}", "Choose another --output."
            ) from error
        try:
            yield PartialFile(output, kind, dict(run), file)
        except BaseException:
            # What a full disk refused is still in the buffer: closing tries it again, and must not speak last.
            with suppress(OSError):
                file.close()
            _forget_without_rows(output, kind)
            raise
        file.close()


def _forget_without_rows(output: Path, kind: str) -> None:
    """A run that failed before its first row leaves nothing to go on with."""
    partial = partial_path(output)
    if partial.exists() and partial.stat().st_size <= len(prediction_columns.header(line_format(kind))):
        partial.unlink()
        run_path(output).unlink(missing_ok=True)


def _require_same_run(output: Path, run: Mapping[str, Any]) -> None:
    hint = "Use the same model and options, or begin again with --overwrite."
    try:
        earlier = json.loads(run_path(output).read_text())
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{partial_path(output).name} cannot be gone on with: its record is unreadable ({error})", hint
        ) from None
    now = json.loads(json.dumps(dict(run)))
    differing = [
        f"{key}: {earlier.get(key)!r} then, {now.get(key)!r} now"
        for key in sorted({*earlier, *now})
        if earlier.get(key) != now.get(key)
    ]
    if differing:
        raise ArtifactError(
            f"{partial_path(output).name} was made with something else; " + "; ".join(differing), hint
        )


def write_parquet(output: Path, rows: Iterator[prediction_columns.Row]) -> None:
    """Rows as Parquet, a group at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"text": pa.string(), "integer": pa.int64(), "float32": pa.float32(), "flag": pa.bool_()}
    schema = pa.schema([(column.name, kinds[column.kind]) for column in prediction_columns.COLUMNS])
    with atomic_file(output) as file, pq.ParquetWriter(file, schema) as writer:
        while group := list(islice(rows, _GROUP_ROWS)):
            writer.write_table(pa.Table.from_pylist([dict(row) for row in group], schema=schema))


def read_rows(path: Path, kind: str) -> Iterator[dict[str, Any]]:
    """Rows of a whole table, in order.

    Raises
    ------
    ArtifactError : it is not there, or no table of predictions.
    """
    if kind == "parquet":
        yield from _read_parquet(path)
        return
    try:
        with path.open("rb") as file:
            header = prediction_columns.header(kind)
            if file.read(len(header)) != header:
                raise ArtifactError(f"{path.name} is no table of predictions by this version")
            for line in file:
                yield prediction_columns.decode(line, kind)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror or error}") from None


def _read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if tuple(file.schema_arrow.names) != prediction_columns.NAMES:
                raise ArtifactError(f"{path.name} is no table of predictions by this version")
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from None
