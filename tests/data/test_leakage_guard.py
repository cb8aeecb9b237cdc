"""The leakage guard: a lesion on two sides is a hard error wherever a split is written or read."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.errors import DataError
from tests.support.class_lists import ISIC2018


@pytest.fixture
def manifest(tmp_path) -> Manifest:
    """Images a, b of lesion L1 and c, d of lesion L2."""
    rows = [
        {"id": name, "file": f"{name}.jpg", "label": "NV", "lesion_id": lesion}
        for name, lesion in (("a", "L1"), ("b", "L1"), ("c", "L2"), ("d", "L2"))
    ]
    table = pd.DataFrame(rows, columns=list(Manifest.COLUMNS), dtype=str).fillna("")
    Manifest(table, "none", "none", classes=ISIC2018).save(tmp_path / "manifest.json")
    return Manifest.load(tmp_path / "manifest.json")


def split_of(rows: list[tuple[str, str, str]], *, leaks: bool = False) -> Split:
    table = pd.DataFrame(rows, columns=list(Split.COLUMNS), dtype=str)
    return Split(table, "grouped", 0, leaks_lesions=leaks)


GOOD = [("a", "train", ""), ("b", "train", ""), ("c", "val", ""), ("d", "val", "")]


def write(folder: Path, split: Split, manifest: Manifest) -> Split:
    split.save(folder / "split.json", manifest)
    return Split.load(folder / "split.json", manifest)


def test_a_clean_split_passes(tmp_path, manifest):
    assert write(tmp_path, split_of(GOOD), manifest).ids("val") == ["c", "d"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "train", ""), ("b", "val", "")], "more than one side of the split: L1"),
        ([("a", "train", ""), ("b", "test", "")], "more than one side of the split: L1"),
        ([("c", "val", ""), ("d", "test", "")], "more than one side of the split: L2"),
        ([("a", "train", "0"), ("b", "train", "1")], "more than one side of the split: L1"),
        ([("a", "train", ""), ("z", "val", "")], "names images that the manifest lacks: z"),
        ([("a", "train", ""), ("a", "train", "")], "more than once: a"),
        ([("a", "exam", "")], "unknown parts: exam"),
    ],
)
def test_what_is_refused_and_not_written(rows, message, tmp_path, manifest):
    with pytest.raises(DataError, match=message):
        write(tmp_path, split_of(rows), manifest)
    assert not (tmp_path / "split.json").exists()


def test_only_the_published_split_may_leak_and_says_so(tmp_path, manifest):
    leaking = [("a", "train", ""), ("b", "test", "")]
    assert write(tmp_path, split_of(leaking, leaks=True), manifest).leaks_lesions


@pytest.fixture
def of_patients(tmp_path) -> Manifest:
    """Images a, b of patient P (two lesions) and c, d of patients who are not known."""
    rows = [
        {"id": name, "file": f"{name}.jpg", "label": "NV", "lesion_id": name, "patient_id": patient}
        for name, patient in (("a", "P"), ("b", "P"), ("c", ""), ("d", ""))
    ]
    table = pd.DataFrame(rows, columns=list(Manifest.COLUMNS), dtype=str).fillna("")
    Manifest(table, "none", "none", classes=ISIC2018).save(tmp_path / "manifest.json")
    return Manifest.load(tmp_path / "manifest.json")


def test_a_patient_on_two_sides_is_refused_when_written_and_when_read(tmp_path, of_patients, monkeypatch):
    assert write(tmp_path, split_of(GOOD), of_patients).ids("val") == ["c", "d"]
    torn = split_of([("a", "train", ""), ("b", "val", ""), ("c", "val", ""), ("d", "test", "")])
    with pytest.raises(DataError, match="patients have images on more than one side of the split: P"):
        torn.save(tmp_path / "other.json", of_patients)
    with monkeypatch.context() as patched:
        patched.setattr("skinlesion_cli.artifacts.split.check_leakage", lambda split, manifest: None)
        torn.save(tmp_path / "split.json", of_patients)
    with pytest.raises(DataError, match="patients have images on more than one side of the split: P"):
        Split.load(tmp_path / "split.json", of_patients)


def test_a_manifest_from_before_patients_were_known_is_read(tmp_path, manifest):
    table = manifest.table.drop(columns="patient_id")
    assert Manifest(table, "none", "none", classes=ISIC2018).table["patient_id"].tolist() == [""] * 4
