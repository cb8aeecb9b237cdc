"""The same bytes, whoever does the work: shards, processes, a dask cluster."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from skinlesion_cli.taxonomy import CLASS_NAMES

pytestmark = pytest.mark.command_line


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
        return np.array([[float(row[f"p_{name}"]) for name in CLASS_NAMES] for row in rows])

    assert output.read_bytes() != whole  # two programs, not one
    np.testing.assert_allclose(numbers(output.read_bytes()), numbers(whole), atol=1e-5, rtol=0)
