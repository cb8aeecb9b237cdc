"""Similar cases of an image: written by the gate, packed without ids, named in every row."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.artifacts.similar_cases import CaseIds, StoredCases
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.decisions.similar_cases import CaseTable
from skinlesion_cli.errors import ArtifactError
from skinlesion_cli.inference.similar import SimilarCases
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages import pack
from tests.support import tiny_models
from tests.support.class_lists import TABLE
from tests.support.command_line import run

pytestmark = pytest.mark.command_line


@pytest.fixture
def dataset(gated: Path) -> Path:
    done = json.loads((gated / "gate.json").read_text())
    assert done["figures"]["similar_cases"]["images"] == 110
    assert 30 <= done["figures"]["similar_cases"]["lesions"] <= 110
    return gated


def predict(folder: Path, *options: object) -> list[dict]:
    done = run("predict", *options, "-o", "-", "--quiet")
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_an_image_of_the_table_finds_its_own_lesion(dataset: Path) -> None:
    workspace = Workspace(dataset / "ws")
    ids = CaseIds.load(workspace.case_ids)
    image = next(iter(workspace.images.rglob(f"{ids.images[0]}.*")))
    (row,) = predict(dataset, image, "-w", dataset / "ws", "--similar", 3)
    similar = row["similar"]
    assert similar["nearest"] == 20
    assert sum(similar["labels"].values()) == 20
    assert [set(case) for case in similar["cases"]] == [{"label", "lesion_id", "image", "distance"}] * 3
    distances = [case["distance"] for case in similar["cases"]]
    assert distances == sorted(distances)
    assert ids.lesion_ids[0] in [case["lesion_id"] for case in similar["cases"]]
    (without,) = predict(dataset, image, "-w", dataset / "ws")
    assert without["similar"] is None
    assert without["p_MEL"] == row["p_MEL"]


def test_a_packed_model_counts_labels_and_names_no_lesion(dataset: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    assert run("pack", "-w", dataset / "ws", "-o", packed, "--quiet").exit_code == 0
    assert (packed / "calibration" / "cases.json").is_file()
    content = b"".join(path.read_bytes() for path in packed.rglob("*") if path.is_file())
    ids = CaseIds.load(Workspace(dataset / "ws").case_ids)
    assert not any(identity.encode() in content for identity in (*ids.lesion_ids[:20], *ids.images[:20]))
    image = sorted((dataset / "in").rglob("*.jpg"))[0]
    (row,) = predict(dataset, image, "--model", packed, "--similar", 2)
    assert sum(row["similar"]["labels"].values()) == 20
    assert [(case["lesion_id"], case["image"]) for case in row["similar"]["cases"]] == [(None, None)] * 2
    done = run("predict", image, "--model", packed, "--similar", 2, "-o", tmp_path / "out.csv", "--report")
    assert done.exit_code == 0, done.output
    assert "of the 20 nearest" in (tmp_path / "out-report.html").read_text("utf-8")


def test_a_model_without_a_table_says_what_to_run(tiny_model: Path, tmp_path: Path) -> None:
    (image,) = tiny_models.make_images(tmp_path, 1).rglob("*.jpg")
    done = run("predict", image, "-w", tiny_model, "--similar", 3, "-o", "-")
    assert done.exit_code == 4
    assert "skinlesion gate" in done.stderr


def stored(checkpoint_sha256: str, network: str = "tiny-fold0") -> StoredCases:
    table = CaseTable(
        network,
        mean=np.zeros(4, np.float32),
        components=np.eye(2, 4, dtype=np.float32),
        steps=np.full(2, 0.01, np.float32),
        codes=np.array([[5, 3], [1, -2]], np.int8),
        labels=np.array([6, 0], np.uint8),
    )
    return StoredCases(table, checkpoint_sha256, {"lesions": 2})


def test_on_disk_and_back(tmp_path: Path) -> None:
    stored("a" * 64).save(tmp_path / "cases.json")
    again = StoredCases.load(tmp_path / "cases.json")
    assert again.table.codes.tolist() == [[5, 3], [1, -2]]
    assert again.table.labels.tolist() == [6, 0]
    assert again.table.components.dtype == np.float32
    assert again.figures == {"lesions": 2}


@pytest.mark.parametrize("change", ["labels", "codes"])
def test_a_damaged_table_is_refused(tmp_path: Path, change: str) -> None:
    good = stored("a" * 64)
    values = np.array([7, 0], np.uint8) if change == "labels" else np.zeros((3, 2), np.int8)
    object.__setattr__(good.table, change, values)
    good.save(tmp_path / "cases.json")
    with pytest.raises(ArtifactError, match=change):
        StoredCases.load(tmp_path / "cases.json")


def test_a_table_of_another_network_is_refused(tmp_path: Path) -> None:
    workspace = Workspace(tiny_models.make_workspace(tmp_path, archs=("tiny",)))
    bundle = Bundle.load(workspace)
    stored("a" * 64, bundle.members[0].name).save(workspace.cases)
    with pytest.raises(ArtifactError, match="aaaaaaaaaaaa"):
        SimilarCases.load(workspace, bundle, 3)
    stored("a" * 64, "elsewhere").save(workspace.cases)
    with pytest.raises(ArtifactError, match="no network of this name"):
        SimilarCases.load(workspace, bundle, 3)


def test_a_model_is_not_packed_with_a_table_of_another_network(tmp_path: Path) -> None:
    workspace = Workspace(tiny_models.make_workspace(tmp_path / "ws", archs=("tiny",)))
    stored("a" * 64).save(workspace.cases)
    settings = pack.PackSettings(workspace=workspace.root, output=tmp_path / "packed")
    with pytest.raises(ArtifactError, match="skinlesion gate"):
        pack.run(settings, SilentReporter())
    assert not (tmp_path / "packed").exists()


def test_cells_of_every_format_read_back() -> None:
    row = TABLE.empty_row() | {
        "row": 1,
        "id": "a",
        "status": "ok",
        "similar": {"nearest": 1, "labels": {"NV": 1}},
    }
    for kind in ("csv", "jsonl"):
        assert TABLE.decode(TABLE.encode(row, kind), kind)["similar"] == row["similar"]
    columns = {"id": "a", "row": 1} | {k: v for k, v in row.items() if k not in ("id", "row", "similar")}
    assert (
        TABLE.renamed({**columns, "similar": '{"nearest":1,"labels":{"NV":1}}'})["similar"] == row["similar"]
    )
