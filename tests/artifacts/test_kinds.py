"""What each kind of artifact refuses, and what it gives back exactly as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from skinlesion_cli.artifacts import envelope, files, maps, tables
from skinlesion_cli.artifacts.evaluation import defined
from skinlesion_cli.artifacts.manifest import Manifest, check
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.errors import ArtifactError, DataError, SkinLesionError
from tests.support.class_lists import ISIC2018

VIEWS = ("identity", "hflip")


def images(*rows: tuple[str, str, str]) -> pd.DataFrame:
    """A manifest's table of images with these ids, classes and lesions."""
    table = pd.DataFrame(rows, columns=["id", "label", "lesion_id"])
    for column in Manifest.COLUMNS:
        if column not in table:
            table[column] = table["id"] + ".jpg" if column == "file" else ""
    return table.loc[:, list(Manifest.COLUMNS)]


TABLE = images(("a", "MEL", "1"), ("b", "NV", "2"), ("c", "NV", "3"))


# Tables


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (images(("a", "MEL", "1"), ("a", "NV", "2")), "occur more than once: a"),
        (images(("a", "nevus", "1"), ("b", "", "2")), r"not known: a \(nevus\), b \(no class\)"),
        (images(("a", "MEL", "")), "a"),
    ],
)
def test_a_manifest_that_cannot_be(table: pd.DataFrame, message: str):
    with pytest.raises(DataError, match=message):
        Manifest(table, "none", "none", classes=ISIC2018)


def test_the_manifest_counts_classes_and_lesions_and_keeps_the_order_asked_for():
    found = Manifest(TABLE, "none", "none", classes=ISIC2018)
    assert (found.class_counts["NV"], found.class_counts["DF"], found.n_lesions) == (2, 0, 3)
    assert found.rows(["c", "a"])["label"].tolist() == ["NV", "MEL"]
    with pytest.raises(ArtifactError, match="lacks the columns label"):
        check(TABLE.drop(columns="label"), ISIC2018)


def test_what_rests_on_a_manifest_wants_it_written_first(tmp_path):
    unwritten = Manifest(TABLE, "none", "none", classes=ISIC2018)
    sides = TABLE[["id"]].assign(part=["train", "val", "test"], fold="")
    with pytest.raises(ValueError, match="before its split"):
        Split(sides, "grouped", 1).save(tmp_path / "split.json", unwritten)


def test_a_split_is_read_with_its_own_manifest_only(tmp_path):
    Manifest(TABLE, "none", "none", classes=ISIC2018).save(tmp_path / "manifest.json")
    written = Manifest.load(tmp_path / "manifest.json")
    sides = TABLE[["id"]].assign(part=["train", "val", "test"], fold=["0", "1", ""])
    Split(sides, "kfold", 1).save(tmp_path / "split.json", written)
    found = Split.load(tmp_path / "split.json", written)
    assert (found.n_folds, found.fold_ids(1), found.fitted_and_judged(None)) == (
        2,
        (["a"], ["b"]),
        (["a"], ["b"]),
    )
    assert found.fitted_and_judged(0) == (["b"], ["a"])
    assert found.seen_ids() == ["a", "b"]
    in_memory = Manifest(TABLE, "none", "none", classes=ISIC2018)
    assert Split.load(tmp_path / "split.json", in_memory).ids("test") == ["c"]
    Manifest(TABLE, "none", "another", classes=ISIC2018).save(tmp_path / "other.json")
    with pytest.raises(ArtifactError, match="was made from manifest"):
        Split.load(tmp_path / "split.json", Manifest.load(tmp_path / "other.json"))


def test_a_csv_that_is_none():
    with pytest.raises(DataError, match="more cells than its header"):
        tables.read_csv(b"a,b\n1,2,3\n1,2,3\n", "x.csv")
    for content in (b"", b"a\n\xff\xff\n"):
        with pytest.raises(DataError, match="cannot be read as a CSV table"):
            tables.read_csv(content, "x.csv")


def test_floats_survive_the_text():
    values = np.array([0.1, 1 / 3, 1e-7], np.float32)
    table = pd.DataFrame({"p": tables.shortest(values)})
    assert table["p"].tolist() == ["0.1", "0.33333334", "0.0000001"]
    assert tables.floats(table, ["p"])[:, 0].tolist() == values.tolist()


def test_predictions_that_cannot_be():
    rows = pd.DataFrame({"id": ["a"], "lesion_id": ["1"], "label": ["MEL"], "fold": [""]})
    with pytest.raises(ArtifactError, match=r"shape \(1, 1, 7\), expected \(1, 2, 7\)"):
        Predictions(rows, np.zeros((1, 1, 7), np.float32), VIEWS, "x", "val", classes=ISIC2018)
    with pytest.raises(ArtifactError, match="not finite for a"):
        Predictions(rows, np.full((1, 2, 7), np.nan, np.float32), VIEWS, "x", "val", classes=ISIC2018)


def test_a_tensor_that_is_none_is_a_damaged_artifact(tmp_path):
    payloads = {"table": (".csv", b"id,lesion_id,label,fold\n"), "views": (".safetensors", b"no")}
    body = {"source": "x", "part": "val", "views": ["identity"], "images": 0}
    path = tmp_path / "p.json"
    envelope.write_artifact(path, kind=Predictions.KIND, schema_version=1, body=body, payloads=payloads)
    with pytest.raises(ArtifactError, match="not a safetensors file"):
        Predictions.load(path)


# The rest


def test_what_is_undefined_is_null_in_json():
    found = defined(
        {1: np.array([0.5, np.nan]), "b": (np.float32(0.25), np.inf, True, "x"), "c": np.int64(3), "d": None}
    )
    assert found == {"1": [0.5, None], "b": [0.25, None, True, "x"], "c": 3, "d": None}


@pytest.mark.parametrize(
    ("identity", "expected"),
    [("a/b.jpg", "a/b.jpg.cam-MEL.png"), ("b.jpg", "b.jpg.cam-MEL.png")],
)
def test_maps_are_named_after_their_image(identity: str, expected: str):
    assert maps.relative_path(identity, "MEL") == expected


@pytest.mark.parametrize("identity", ["../b.jpg", "/b.jpg", "a/./b.jpg", 'b".jpg', "", "x" * 300])
def test_maps_stay_in_their_folder_and_apart(identity: str):
    found = maps.relative_path(identity, "MEL")
    assert ".." not in found.split("/")
    assert not found.startswith("/")
    assert all(len(part.encode()) < 256 for part in found.split("/"))
    others = ("_up/b.jpg", "b.jpg", "a/b.jpg", "b_.jpg", "image", "x" * 180)
    assert found not in {maps.relative_path(other, "MEL") for other in others}


def test_a_folder_that_cannot_be_locked(tmp_path, monkeypatch):
    def refuse(lock) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.FileLock, "acquire", refuse)
    with pytest.raises(SkinLesionError, match="Permission denied"), files.exclusive(tmp_path, "test"):
        pass


def test_a_lock_goes_with_a_folder_that_is_handed_on(tmp_path):
    with files.exclusive(tmp_path, "test"):
        assert (tmp_path / ".test.holder").read_text().startswith("process ")
    assert list(tmp_path.iterdir()) == []


def test_a_library_that_is_not_there_has_no_version(monkeypatch):
    monkeypatch.setattr(envelope, "_LIBRARIES", ("numpy", "no-such-library"))
    found = envelope.made_with()
    assert found["numpy"] == np.__version__
    assert "no-such-library" not in found


def test_every_payload_of_an_artifact_is_verified(tmp_path):
    payloads = {"b": (".csv", b"2"), "a": (".csv", b"1")}
    envelope.write_artifact(tmp_path / "x.json", kind="k", schema_version=1, body={}, payloads=payloads)
    assert sorted(file.read_bytes() for file in envelope.payload_files(tmp_path / "x.json")) == [b"1", b"2"]
    envelope.payload_files(tmp_path / "x.json")[0].write_bytes(b"3")
    with pytest.raises(ArtifactError, match="is damaged"):
        envelope.payload_files(tmp_path / "x.json")


def test_an_envelope_of_gigabytes_is_not_read(tmp_path):
    with (tmp_path / "x.json").open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(ArtifactError, match="too large"):
        envelope.read_artifact(tmp_path / "x.json", kind="k", schema_version=1)


def test_places_in_a_workspace():
    found = Workspace(Path("w"))
    assert found.history("m").as_posix() == "w/models/m/history.csv"
    assert found.curves("m").as_posix() == "w/models/m/curves.png"
    assert found.tensorboard("m").as_posix() == "w/models/m/tensorboard"
    assert found.class_distribution.as_posix() == "w/dataset/class-distribution.png"
