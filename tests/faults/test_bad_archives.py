"""Zips that are malicious or damaged, handed to `predict` and to `download`: refused whole,
nothing taken out.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import tiny_datasets
from tests.support.bad_archives import MALICIOUS
from tests.support.command_line import assert_refused, files_below, rows_of, run

pytestmark = pytest.mark.command_line


@pytest.mark.parametrize("kind", MALICIOUS)
def test_predict_takes_nothing_out_of_a_bad_archive(kind: str, tiny_workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.zip").write_bytes(MALICIOUS[kind])
    done = run("predict", tmp_path / "bad.zip", "-o", tmp_path / "out" / "out.csv", "-w", tiny_workspace)
    assert_refused(done, 1, "bad.zip")
    assert files_below(tmp_path) == ["bad.zip"]
    assert not Path("/tmp/evil.jpg").exists()


def test_a_bad_archive_in_a_list_costs_its_row(tiny_workspace: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.zip").write_bytes(MALICIOUS["parent"])
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'bad.zip'}\n{next(images.rglob('*.jpg'))}\n")
    done = run("predict", f"@{tmp_path / 'list.txt'}", "-o", tmp_path / "out.csv", "-w", tiny_workspace)
    assert done.exit_code == 3, done.output
    rows = rows_of(tmp_path / "out.csv")
    assert rows[str(tmp_path / "bad.zip")]["error"].startswith("archive_refused: ")
    assert [row["status"] for row in rows.values()] == ["error", "ok"]


@pytest.mark.parametrize("kind", MALICIOUS)
def test_download_takes_nothing_out_of_a_bad_archive(kind: str, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    truth = "ISIC2018_Task3_Training_GroundTruth.csv"
    (source / truth).write_text(tiny_datasets.ground_truth(tiny_datasets.TRAINING))
    (source / "ISIC2018_Task3_Training_Input.zip").write_bytes(MALICIOUS[kind])
    done = run("download", "--from", source, "-w", tmp_path / "ws")
    assert_refused(done, 1, "ISIC2018_Task3_Training_Input.zip")
    assert files_below(tmp_path) == [f"in/{truth}", "in/ISIC2018_Task3_Training_Input.zip"]
    assert not Path("/tmp/evil.jpg").exists()
