"""Results in order that never wait for a further item, and the count of cores."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from skinlesion_cli import parallel
from skinlesion_cli.parallel import ReadAhead, in_order
from tests.support.command_line import assert_refused, run

# Against hanging only.
PATIENCE_S = 60.0


def paused(gate: threading.Event) -> Iterator[int]:
    """Two items, then none until the gate opens."""
    yield 1
    yield 2
    assert gate.wait(PATIENCE_S)
    yield 3


def test_results_come_in_the_order_of_the_items() -> None:
    def work(item: int) -> int:
        time.sleep(0.02 if item % 3 == 0 else 0.0)
        return item * 10

    assert list(in_order(range(12), work, threads=4)) == [item * 10 for item in range(12)]
    assert list(in_order([], work, threads=2)) == []


def test_a_finished_result_does_not_wait_for_the_next_item() -> None:
    gate = threading.Event()
    results = in_order(paused(gate), lambda item: -item, threads=2)
    assert [next(results), next(results)] == [-1, -2]
    gate.set()
    assert list(results) == [-3]


def test_no_more_items_are_taken_than_asked_for() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results = in_order(items(), lambda item: item, threads=1, ahead=3)
    assert next(results) == 0
    deadline = time.monotonic() + PATIENCE_S
    while len(taken) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.05)
    assert taken == [0, 1, 2, 3]
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("in_work", [True, False])
def test_an_exception_comes_at_its_turn(in_work: bool) -> None:
    def items() -> Iterator[int]:
        yield from (1, 2)
        if not in_work:
            raise OSError("no third")
        yield 3

    def work(item: int) -> int:
        if item == 3:
            raise OSError("no third")
        return item

    results = in_order(items(), work, threads=2)
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(OSError, match="no third"):
        next(results)


def test_what_is_there_is_taken_without_waiting_for_more() -> None:
    gate = threading.Event()
    items = ReadAhead(paused(gate), 8)
    assert items.take(1) == [1]
    assert items.take(5, timeout_s=PATIENCE_S) == [2]
    assert items.take(5, timeout_s=0.01) == []
    gate.set()
    assert items.take(5) == [3]
    assert items.take(5) == []
    assert items.take(5) == []


def test_an_exception_of_the_source_follows_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the list ends here")

    source = ReadAhead(items(), 8)
    deadline = time.monotonic() + PATIENCE_S
    while source._taken.qsize() < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert source.take(4) == [1]
    with pytest.raises(OSError, match="the list ends here"):
        source.take(4)
    assert source.take(4) == []


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file system of control groups without limits, and 8 cores by affinity."""
    root = tmp_path / "cgroup"
    root.mkdir()
    monkeypatch.setattr(parallel, "_CGROUPS", root)
    monkeypatch.setattr(parallel, "_PROCESS_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(parallel, "affinity_cores", lambda: 8)
    return root


@pytest.mark.parametrize(
    ("content", "limit", "cores"),
    [
        ("max 100000\n", None, 8),
        ("250000 100000\n", 2.5, 2),
        ("50000 100000\n", 0.5, 1),
        ("3200000 100000\n", 32.0, 8),
        ("nonsense\n", None, 8),
    ],
)
def test_a_container_limit_of_version_2(content: str, limit: float | None, cores: int, groups: Path) -> None:
    (groups / "cpu.max").write_text(content)
    assert parallel.container_cores() == limit
    assert parallel.available_cores() == cores


def test_without_control_groups_the_affinity_counts(groups: Path) -> None:
    assert parallel.container_cores() is None
    assert parallel.available_cores() == 8


def test_the_lowest_limit_of_the_groups_above_counts(groups: Path) -> None:
    (groups.parent / "own").write_text("0::/user.slice/job\n")
    (groups / "user.slice" / "job").mkdir(parents=True)
    (groups / "user.slice" / "job" / "cpu.max").write_text("600000 100000\n")
    assert parallel.available_cores() == 6
    (groups / "user.slice" / "cpu.max").write_text("300000 100000\n")
    assert parallel.available_cores() == 3


def test_a_container_limit_of_version_1(groups: Path) -> None:
    (groups.parent / "own").write_text("3:cpuset:/\n2:cpu,cpuacct:/docker/abc\n1:memory:/other\n")
    folder = groups / "cpu,cpuacct" / "docker" / "abc"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text("400000\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert parallel.available_cores() == 4
    (folder / "cpu.cfs_quota_us").write_text("-1\n")
    assert parallel.available_cores() == 8


def test_libraries_get_the_threads_that_a_command_leaves_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    with parallel.library_threads(3):
        # What the user has set stays.
        assert (os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"]) == ("3", "ACTIVE")
    assert "OMP_NUM_THREADS" not in os.environ
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


@pytest.mark.parametrize(
    ("text", "busy"), [("0.1 0.2 0.3 7/200 99", 6.0), ("0 0 0 1/200 99", 0.0), ("x", None)]
)
def test_the_load_of_other_programs_is_what_runs_now(
    text: str, busy: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loadavg").write_text(text)
    monkeypatch.setattr(parallel, "_LOAD", tmp_path / "loadavg")
    assert parallel.busy_cores(pause_s=0.0) == busy


@pytest.mark.parametrize("text", ["", "0", "-1", "two", "1.5", "\u00b2"])
def test_what_is_no_number_of_processes_is_refused_by_name(text: str, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", text)
    assert_refused(run("train", "--dry-run"), 2, "LOCAL_WORLD_SIZE is no number of processes")
