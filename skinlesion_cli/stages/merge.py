"""Merge the tables of all shards into one, in the order of the inputs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from heapq import merge as merge_sorted
from pathlib import Path
from typing import Any

from skinlesion_cli.artifacts import prediction_file
from skinlesion_cli.artifacts.prediction_columns import ColumnSet, Row
from skinlesion_cli.config.settings import StageSettings
from skinlesion_cli.errors import ArtifactError, ExitCode, UsageError, name_items
from skinlesion_cli.inference.prediction import Prediction, codes_of, table_with
from skinlesion_cli.inference.summary import Tally
from skinlesion_cli.progress import Reporter
from skinlesion_cli.result import StageResult, counted

# Files that a process has open beside the shards: streams, libraries, the output.
_OTHER_OPEN_FILES = 64


class MergeSettings(StageSettings):
    """`shards` are tables that `predict --shard` wrote, in any order; all of them."""

    shards: tuple[Path, ...]
    output: Path


def run(settings: MergeSettings, reporter: Reporter) -> StageResult:
    """Write one table, byte for byte what one run over all inputs would have written.

    Raises
    ------
    UsageError : no shards, or of another format than the output.
    ArtifactError : a shard is missing or unfinished, was made with another model or other inputs, or rows are
        missing or doubled.
    """
    if not settings.shards:
        raise UsageError("no shards to merge", "Example: skinlesion merge part-*.csv --output all.csv")
    replaced = prediction_file.check_output(settings.output, settings.shards)
    if replaced:
        reporter.note(f"{settings.output} is a finished table of predictions; this run replaces it")
    records = {path: _record(path) for path in settings.shards}
    _check(records)
    kind = prediction_file.format_of(settings.output)
    kinds = {record["format"] for record in records.values()}
    if kinds != {kind}:
        raise UsageError(f"the shards are {', '.join(sorted(kinds))}, but the output is {kind}")
    run_of = dict(next(iter(records.values()))) | {"shard": None, "merge": True}
    total, columns = run_of.pop("inputs")["count"], run_of["columns"]
    table, tally = table_with(columns), Tally(codes_of(columns))
    _refuse_unfinished_predictions(settings.output)
    _allow_open_files(len(records) + _OTHER_OPEN_FILES)
    with (
        prediction_file.open_partial(
            settings.output, kind, table, run_of, resume=False, overwrite=True
        ) as partial,
        reporter.task("merging", total=total, unit="rows") as task,
    ):
        streams = [_rows(path, kind, table) for path in settings.shards]
        for row in _checked(merge_sorted(*streams, key=lambda row: row["row"]), total):
            partial.write_line(row)
            tally.add(Prediction.from_row(row))
            task.advance()
        partial.finish()
    return StageResult(
        command="merge",
        headline=[f"{total} rows of {len(records)} shards"],
        figures=tally.figures() | {"shards": len(records), "model_sha256": run_of["model_sha256"]},
        artifacts=[str(settings.output)],
        warnings=[f"{counted(tally.failed, 'image')} could not be read: {tally.name_failures()}"]
        if tally.failed
        else [],
        exit_code=ExitCode.PARTIAL if tally.failed else ExitCode.OK,
    )


def _record(path: Path) -> dict[str, Any]:
    if not path.is_file():
        unfinished = prediction_file.partial_path(path).exists()
        raise ArtifactError(
            f"the shard {path} is {'unfinished' if unfinished else 'missing'}",
            "Predict that shard again with --resume.",
        )
    try:
        record = json.loads(prediction_file.shard_path(path).read_text("utf-8"))
        index, count = record["shard"]
        typed = isinstance(record["inputs"]["count"], int) and isinstance(record["model_sha256"], str)
        if not typed or not 1 <= index <= count or not all(isinstance(x, str) for x in record["columns"]):
            raise ValueError("it is not the record of a shard")
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise ArtifactError(
            f"{prediction_file.shard_path(path).name}, the record of {path.name}, cannot be read: {error}",
            "Merge tables that `skinlesion predict --shard` wrote, with their .shard files beside them.",
        ) from None
    return dict(record)


def _refuse_unfinished_predictions(output: Path) -> None:
    """Refuse to drop the rows of an unfinished `predict`; those of an unfinished merge are all in the shards.

    Raises
    ------
    UsageError : naming the file.
    """
    partial = prediction_file.partial_path(output)
    if not partial.exists():
        return
    try:
        of_merge = "merge" in json.loads(prediction_file.run_path(output).read_text("utf-8"))
    except (OSError, ValueError, TypeError):
        of_merge = False
    if not of_merge:
        raise UsageError(
            f"{partial} holds the rows of an unfinished run of predict",
            "Finish it with --resume, or choose another --output.",
        )


def _allow_open_files(n_files: int) -> None:
    """Raise the soft limit of open files: every shard has a row to compare, and many systems allow 1,024.

    The hard limit stays. Where it is too low, opening a shard says so.
    """
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = n_files if hard == resource.RLIM_INFINITY else min(n_files, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _rows(path: Path, kind: str, table: ColumnSet) -> Iterator[Row]:
    for row in prediction_file.read_rows(path, kind, table):
        if row["row"] is None:
            raise ArtifactError(f"{path.name} has a row without a number")
        yield row


def _check(records: dict[Path, dict[str, Any]]) -> None:
    first_path, first = next(iter(records.items()))
    for path, record in records.items():
        for key in sorted({*first, *record} - {"shard"}):
            if (record.get(key), record["shard"][1]) != (first.get(key), first["shard"][1]):
                raise ArtifactError(
                    f"{first_path.name} and {path.name} do not belong to one run: {key} is "
                    f"{first.get(key)} and "
                    f"{record.get(key)}, shards are {first['shard']} and {record['shard']}",
                    "Predict all shards with the same model, options and inputs.",
                )
    count = first["shard"][1]
    indexes = [record["shard"][0] for record in records.values()]
    missing = sorted(set(range(1, count + 1)) - set(indexes))
    if missing:
        raise ArtifactError(
            f"these shards of {count} are missing: {name_items(missing)}", "Name the tables of all shards."
        )
    if len(indexes) > count:
        raise ArtifactError(f"a shard was given twice: {name_items(sorted(indexes))}")


def _checked(rows: Iterator[Row], total: int) -> Iterator[Row]:
    expected = 1
    for row in rows:
        if row["row"] != expected:
            what = "occurs twice" if row["row"] < expected else "is missing"
            raise ArtifactError(f"row {min(expected, row['row'])} {what} in the shards")
        yield row
        expected += 1
    if expected != total + 1:
        raise ArtifactError(f"the shards hold {expected - 1} rows, but there were {total} inputs")
