"""The same bytes, whoever does the work: shards, processes, a Dask cluster, a Ray cluster."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from tests.support.class_lists import ISIC2018

pytestmark = pytest.mark.command_line

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def whole(skinlesion, tiny_workspace: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    output = tmp_path_factory.mktemp("whole") / "all.csv"
    done = skinlesion("predict", images, "-o", output, "-w", tiny_workspace, "--batch", "3")
    assert done.returncode == 0, done.stderr
    return output.read_bytes()


def test_shards_merge_to_the_same_bytes(
    skinlesion, tiny_workspace: Path, images: Path, tmp_path: Path, whole: bytes
):
    for index in (1, 2, 3):
        done = skinlesion(
            "predict", images, "-o", tmp_path / f"part-{index}.csv", "-w", tiny_workspace,
            "--shard", f"{index}/3", "--batch", "3",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    parts = [tmp_path / f"part-{index}.csv" for index in (3, 1, 2)]
    lacking = skinlesion("merge", *parts[:2], "-o", tmp_path / "all.csv")
    assert lacking.returncode == 4
    assert "shards of 3 are missing: 2" in lacking.stderr
    merged = skinlesion("merge", *parts, "-o", tmp_path / "all.csv")
    assert merged.returncode == 0, merged.stderr
    assert (tmp_path / "all.csv").read_bytes() == whole
    lines = parts[0].read_bytes().splitlines(keepends=True)
    parts[0].write_bytes(b"".join(lines[:-1]))
    torn = skinlesion("merge", *parts, "-o", tmp_path / "all.csv")
    assert torn.returncode == 4
    assert (tmp_path / "all.csv").read_bytes() == whole


@pytest.mark.skipif(sys.platform == "win32", reason="its limit of open files is no setting of a process")
def test_more_shards_are_merged_than_files_may_be_open(
    skinlesion, tiny_workspace: Path, images: Path, tmp_path: Path, whole: bytes
):
    done = skinlesion(
        "predict", images, "-o", tmp_path / "all.csv", "-w", tiny_workspace, "--shard", "1/1", "--batch", "3"
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "all.csv.shard").read_text("utf-8"))
    header, *rows = (tmp_path / "all.csv").read_bytes().splitlines(keepends=True)
    parts = [tmp_path / f"part-{index}.csv" for index in range(1, len(rows) + 1)]
    for index, (part, row) in enumerate(zip(parts, rows, strict=True), 1):
        part.write_bytes(header + row)
        Path(f"{part}.shard").write_text(json.dumps(record | {"shard": [index, len(rows)]}), encoding="utf-8")
    command = [sys.executable, "-m", "skinlesion_cli", "merge", *parts, "-o", tmp_path / "merged.csv"]
    merged = subprocess.run(
        ["sh", "-c", f'ulimit -Sn {len(rows)}; exec "$@"', "sh", *command],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert merged.returncode == 0, merged.stderr
    assert (tmp_path / "merged.csv").read_bytes() == whole


def test_local_processes_write_the_same_bytes(
    skinlesion, tiny_workspace: Path, images: Path, tmp_path: Path, whole: bytes
):
    done = skinlesion(
        "predict", images, "-o", tmp_path / "all.csv", "-w", tiny_workspace, "--batch", "3",
        "--backend", "local", "--workers", "2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "all.csv").read_bytes() == whole


def test_a_dask_cluster_writes_the_same_bytes(
    skinlesion, tiny_workspace: Path, images: Path, tmp_path: Path, whole: bytes
):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        done = skinlesion(
            "predict", images, "-o", tmp_path / "all.csv", "-w", tiny_workspace, "--batch", "3",
            "--backend", "dask", "--address", cluster.scheduler_address,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "all.csv").read_bytes() == whole


@pytest.fixture(scope="session")
def twice(
    skinlesion, tiny_workspace: Path, images: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[str], bytes]:
    """80 names, and the table of them by one process, one image a batch."""
    names = [str(path) for path in sorted(images.rglob("*.jpg"))] * 2
    output = tmp_path_factory.mktemp("twice") / "all.csv"
    arguments = ("predict", "-", "-o", output, "-w", tiny_workspace, "--batch", "1")
    done = skinlesion(*arguments, stdin="\n".join(names))
    assert done.returncode == 0, done.stderr
    return names, output.read_bytes()


def kill_one_worker(
    workspace: Path, output: Path, names: list[str], workers: Callable[[int], list[int]], *more: str
) -> str:
    """Predict, kill -9 one of `workers` (of the process) while names are still to come; what stderr said."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "skinlesion_cli", "predict", "-", "-o", str(output)),
            *("-w", str(workspace), "--batch", "1", *more),
        ],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write("".join(f"{name}\n" for name in names[:60]).encode())
    process.stdin.flush()
    partial = output.with_name(output.name + ".partial")
    for _ in range(12_000):
        # More than a header: the workers are up.
        if partial.exists() and partial.read_bytes().count(b"\n") > 1:
            break
        assert process.poll() is None, (process.stderr or sys.stderr).read()
        time.sleep(0.01)
    os.kill(workers(process.pid)[0], signal.SIGKILL)
    _, errors = process.communicate("".join(f"{name}\n" for name in names[60:]).encode())
    assert process.returncode == 0, errors
    return errors.decode()


@pytest.mark.parametrize("more", [(), ("--backend", "local", "--workers", "2")], ids=["threads", "local"])
def test_finished_rows_do_not_wait_for_further_names(
    more: tuple[str, ...], tiny_workspace: Path, twice: tuple[list[str], bytes], tmp_path: Path
) -> None:
    names, whole = twice
    output = tmp_path / "all.csv"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "skinlesion_cli", "predict", "-", "-o", str(output)),
            *("-w", str(tiny_workspace), "--batch", "1", *more),
        ],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    partial = output.with_name(output.name + ".partial")
    for n_rows in (1, 3):
        process.stdin.write("".join(f"{name}\n" for name in names[n_rows // 2 : n_rows]).encode())
        process.stdin.flush()
        for _ in range(12_000):
            if partial.exists() and partial.read_bytes().count(b"\n") == 1 + n_rows:
                break
            assert process.poll() is None, (process.stderr or sys.stderr).read()
            time.sleep(0.01)
        assert partial.read_bytes().count(b"\n") == 1 + n_rows
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert output.read_bytes() == b"".join(whole.splitlines(keepends=True)[:4])


def test_a_dask_worker_that_dies_costs_nothing_but_time(
    tiny_workspace: Path, twice: tuple[list[str], bytes], tmp_path: Path
) -> None:
    distributed = pytest.importorskip("distributed")
    names, whole = twice
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        pids = [worker.pid for worker in cluster.workers.values()]
        kill_one_worker(
            tiny_workspace, tmp_path / "all.csv", names, lambda _: pids,
            "--backend", "dask", "--address", cluster.scheduler_address,
        )  # fmt: skip
    assert (tmp_path / "all.csv").read_bytes() == whole


@contextmanager
def ray_node(folder: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A node of a Ray cluster with one processor, in a process of its own, once it is up."""
    log = folder / f"node-{len(list(folder.glob('node-*')))}.log"
    with log.open("wb") as output:
        node = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus", "1"),
                *("--disable-usage-stats", "--object-store-memory", "80000000", *options),
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        for _ in range(6_000):
            if b"Ray runtime started" in log.read_bytes():
                break
            assert node.poll() is None, log.read_text()
            time.sleep(0.01)
        yield node
    finally:
        # All processes of the node: asked to end, Ray takes half a minute.
        os.killpg(node.pid, signal.SIGKILL)
        node.wait(60)


@pytest.fixture
def ray_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[int]]]:
    """Address of a Ray cluster of two nodes with one processor each, and the ids of the nodes' processes."""
    pytest.importorskip("ray", reason="ray is not installed")
    # A cluster takes the token that it finds in the user's home, if any: this one has its own.
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    # Paths of sockets must be short.
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as name:
        folder, (host, port) = Path(name), address.split(":")
        head = ("--head", "--port", port, "--node-ip-address", host, "--include-dashboard=false")
        with (
            ray_node(folder, *head, "--temp-dir", name) as first,
            ray_node(folder, "--address", address) as second,
        ):
            yield address, [first.pid, second.pid]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for its worker processes in /proc")
def test_a_ray_cluster_writes_the_same_bytes_though_a_worker_dies(
    ray_cluster: tuple[str, list[int]],
    tiny_workspace: Path,
    twice: tuple[list[str], bytes],
    tmp_path: Path,
) -> None:
    (address, nodes), (names, whole) = ray_cluster, twice

    def workers(_client: int) -> list[int]:
        of_nodes = [ray_actors_of(node) for node in nodes]
        # Ray spreads them over the nodes where it can; on a busy machine both may be on one.
        assert sum(map(len, of_nodes)) == 2
        return of_nodes[1] or of_nodes[0]

    errors = kill_one_worker(
        tiny_workspace, tmp_path / "all.csv", names, workers, "--backend", "ray", "--address", address
    )
    assert "a worker died (Actor" in errors
    assert (tmp_path / "all.csv").read_bytes() == whole


def test_ray_on_this_machine_writes_the_same_bytes(
    skinlesion, tiny_workspace: Path, images: Path, tmp_path: Path, whole: bytes
) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    done = skinlesion(
        "predict", images, "-o", tmp_path / "all.csv", "-w", tiny_workspace, "--batch", "3",
        "--backend", "ray", "--workers", "2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "all.csv").read_bytes() == whole


def ray_actors_of(process: int) -> list[int]:
    """Actors that descend from this process."""
    actors = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and (entry / "cmdline").read_bytes().startswith(b"ray::PoolActor"):
                ancestor = int(entry.name)
                while ancestor not in (0, 1, process):
                    status = Path(f"/proc/{ancestor}/stat").read_text(encoding="utf-8")
                    ancestor = int(status.rpartition(")")[2].split()[1])
                actors += [int(entry.name)] if ancestor == process else []
    return actors


def test_a_ray_cluster_that_is_not_there_is_told_at_once(
    skinlesion, tiny_workspace: Path, images: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    done = skinlesion(
        "predict", images, "-o", tmp_path / "o.csv", "-w", tiny_workspace,
        "--backend", "ray", "--address", "127.0.0.1:1",
    )  # fmt: skip
    assert done.returncode == 1
    assert "no ray cluster answers at 127.0.0.1:1" in done.stderr


def test_what_is_missing_for_a_cluster_is_said(
    skinlesion, tiny_workspace: Path, images: Path, tmp_path: Path
):
    done = skinlesion("predict", images, "-o", tmp_path / "o.csv", "-w", tiny_workspace, "--backend", "dask")
    assert done.returncode == 2
    assert "--address" in done.stderr
    wrong = skinlesion("predict", images, "-o", tmp_path / "o.csv", "-w", tiny_workspace, "--shard", "4/3")
    assert wrong.returncode == 2


def test_torch_and_onnxruntime_give_the_same_probabilities(
    skinlesion, tiny_workspace: Path, images: Path, tmp_path: Path, whole: bytes
) -> None:
    """The whole table was made with onnxruntime, which is taken where the networks are exported."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    output = tmp_path / "torch.csv"
    done = skinlesion("predict", images, "-o", output, "-w", tiny_workspace, "--runtime", "torch")
    assert done.returncode == 0, done.stderr

    def numbers(table: bytes) -> np.ndarray:
        rows = csv.DictReader(table.decode().splitlines())
        return np.array([[float(row[f"p_{name}"]) for name in ISIC2018.codes] for row in rows])

    assert output.read_bytes() != whole  # two programs, not one
    np.testing.assert_allclose(numbers(output.read_bytes()), numbers(whole), atol=1e-5, rtol=0)
