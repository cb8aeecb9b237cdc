"""Lists, archives, metadata and caches at their edges: what is refused, by which reason, and what passes."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from skinlesion_cli.artifacts.files import sha256_file
from skinlesion_cli.data import metadata
from skinlesion_cli.data.ingest import ingest_images
from skinlesion_cli.data.near_duplicates import Pair, find_pairs, merged_lesions
from skinlesion_cli.data.reading import folders, inputs
from skinlesion_cli.data.reading.archives import open_archive
from skinlesion_cli.data.reading.listing import list_images
from skinlesion_cli.data.sources.base import Collection, FileOrigin, Record
from skinlesion_cli.data.splits import class_counts
from skinlesion_cli.data.training import cache as caches
from skinlesion_cli.data.training import loader
from skinlesion_cli.errors import DataError, ImageError, SkinLesionError, UsageError
from skinlesion_cli.progress import SilentReporter
from tests.support import tiny_datasets
from tests.support.class_lists import ISIC2018


def refused(act, *arguments, **options) -> str:
    with pytest.raises(ImageError) as told:
        act(*arguments, **options)
    return told.value.reason


# Inputs


def test_links_below_a_folder_are_told_and_not_followed(tmp_path):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.jpg").write_bytes(b"")
    (folder / "notes.txt").write_bytes(b"")
    (folder / "loop.d").symlink_to(folder / "loop.d")
    (folder / "out").symlink_to(tmp_path)
    (folder / "b.jpg").symlink_to(folder / "sub" / "a.jpg")
    (folder / "text").symlink_to(folder / "notes.txt")
    found = {one.id: one.refusal and one.refusal[0] for one in inputs.expand([str(folder)])}
    assert {name: reason for name, reason in found.items() if name != "loop.d"} == {
        "b.jpg": "link",
        "out": "link",
        "sub/a.jpg": None,
    }


def test_a_folder_that_cannot_be_opened_has_a_row(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    (one,) = inputs.expand([str(tmp_path)])
    assert one.refusal == ("unreadable", "the folder cannot be opened: Permission denied")


def test_a_link_that_cannot_be_looked_up_counts_as_a_folder(monkeypatch):
    def refuse(path):
        raise OSError(40, "Too many levels of symbolic links")

    monkeypatch.setattr(Path, "is_dir", refuse)
    assert folders._leads_to_folder(Path("x"))


def test_patterns_take_only_what_may_be_an_image(tmp_path):
    for name in ("a.jpg", "b.txt", "c.dcm"):
        (tmp_path / name).write_bytes(b"")
    found = [Path(one.id).name for one in inputs.expand([f"{tmp_path}/*"])]
    assert found == ["a.jpg", "c.dcm"]
    (tmp_path / "list").write_text("x.jpg\n")
    inputs.check_named([f"@{tmp_path / 'list'}", f"{tmp_path}/*.jpg", str(tmp_path / "b.txt")])
    with pytest.raises(UsageError, match=r"none\.jpg, @none"):
        inputs.check_named(["none.jpg", "@none"])


def test_an_archive_that_goes_away_is_one_damaged_image(tmp_path):
    (tmp_path / "a.zip").write_bytes(
        tiny_datasets.zipped({"in/x.jpg": tiny_datasets.jpeg(1), "__MACOSX/x.jpg": b"", "n.txt": b""})
    )
    (one,) = inputs.expand([str(tmp_path / "a.zip")])
    assert (one.id, one.member) == ("in/x.jpg", "in/x.jpg")
    assert inputs.load(one).pixels.shape == (48, 64, 3)
    (tmp_path / "a.zip").write_bytes(b"no zip any more")
    assert refused(inputs.load, one) == "damaged"


def test_a_refusal_is_the_error_of_its_row():
    assert refused(inputs.load, inputs.ImageInput("x", Path("x"), refusal=("link", "no"))) == "link"


# Listing and bringing in


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UsageError, match="Permission denied"):
        list_images(tmp_path)


def collection(*files: Path, names: tuple[str, ...] = ()) -> Collection:
    records = [
        Record(path.stem, FileOrigin(path), name, "NV", path.stem)
        for path, name in zip(files, names or [path.name for path in files], strict=True)
    ]
    return Collection("made", records, "unknown", "unknown", ())


def test_two_images_never_take_one_name(tmp_path):
    with pytest.raises(DataError, match=r"more than one image would get the name same\.jpg"):
        ingest_images(
            collection(tmp_path / "a", tmp_path / "b", names=("same.jpg", "same.jpg")),
            tmp_path / "images",
            SilentReporter(),
        )


def test_where_links_cannot_be_made_a_copy_serves(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(tiny_datasets.jpeg(1))

    def refuse(source, target):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    table = ingest_images(collection(tmp_path / "a.jpg"), tmp_path / "images", SilentReporter(), link=True)
    copied = tmp_path / "images" / "a.jpg"
    assert (copied.read_bytes(), copied.stat().st_nlink) == (tiny_datasets.jpeg(1), 1)
    assert table["id"].tolist() == ["a"]


def test_an_archive_of_too_many_members(tmp_path, monkeypatch):
    (tmp_path / "a.zip").write_bytes(tiny_datasets.zipped({"a.jpg": b"1", "b.jpg": b"2"}))
    monkeypatch.setattr("skinlesion_cli.data.reading.archives._MAX_MEMBERS", 1)
    with pytest.raises(DataError, match="has 2 members"):
        open_archive(tmp_path / "a.zip")


# Metadata, splits, duplicates


def test_metadata_is_numbers_and_what_is_unknown_is_zeros():
    table = pd.DataFrame(
        {"age_years": ["50", "", "x"], "sex": ["Female", "male", ""], "site": ["back", "sky", "trunk"]}
    )
    found = metadata.encode(metadata.of_manifest(table), ["age", "sex", "site"])
    assert (found.shape, found.dtype) == ((3, 18), np.float32)
    assert found[:, :4].tolist() == [[1.0, 0.5, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    assert np.argwhere(found[:, 4:]).tolist() == [[0, 2], [2, 12]]
    assert metadata.n_columns(["age", "site"]) == 16
    assert metadata.encode(table, []).shape == (3, 0)


def test_every_part_tells_its_zeros():
    pictures = pd.DataFrame({"id": ["a", "b"], "label": ["MEL", "NV"]})
    found = class_counts(
        pictures, pd.DataFrame({"id": ["a", "b"], "part": ["train", "test"]}), codes=ISIC2018.codes
    )
    assert (found["train"]["MEL"], found["train"]["NV"], found["test"]["NV"]) == (1, 0, 1)


def test_images_that_cannot_be_compared_are_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no")
    with pytest.raises(DataError, match=r"cannot be read: a\.jpg"):
        find_pairs([("a", "a.jpg")], tmp_path, SilentReporter())


def test_lesions_without_duplicates_stay_what_they_are():
    assert merged_lesions({"a": "1", "b": "2"}, []) == {"a": "1", "b": "2"}
    assert merged_lesions({"a": "1", "b": "1"}, [Pair("a", "b", 0, 1.0)]) == {"a": "1", "b": "1"}


# Caches and workers


def test_a_cache_of_another_shape_is_made_again(tmp_path):
    (tmp_path / "a.jpg").write_bytes(tiny_datasets.jpeg(1))
    files = [caches.ImageFile("a", "a.jpg", sha256_file(tmp_path / "a.jpg"))]
    first = caches.open_cache(tmp_path / "cache", files, tmp_path, 32, SilentReporter())
    path = first.path
    wanted = np.array(first.images)
    np.save(path, np.zeros((1, 32, 32, 3), np.float32))
    again = caches.open_cache(tmp_path / "cache", files, tmp_path, 32, SilentReporter())
    assert (again.images == wanted).all()


def test_a_cache_that_another_made_meanwhile_is_taken_and_one_that_vanished_is_an_error(
    tmp_path, monkeypatch
):
    (tmp_path / "a.jpg").write_bytes(tiny_datasets.jpeg(1))
    files = [caches.ImageFile("a", "a.jpg", sha256_file(tmp_path / "a.jpg"))]

    def open_it():
        return caches.open_cache(tmp_path / "cache", files, tmp_path, 32, SilentReporter())

    made = open_it()
    answers = iter([None, made])
    monkeypatch.setattr(caches, "_open", lambda *_: next(answers))
    assert open_it() is made
    monkeypatch.setattr(caches, "_open", lambda *_: None)
    with pytest.raises(SkinLesionError, match="another program changed"):
        open_it()


def test_a_worker_gets_the_name_of_the_memory_map_not_its_bytes(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    for pixels in (mapped, np.array(mapped)):
        shown = loader.TrainingImages(pixels, np.array([0]), np.array([1]))
        again = pickle.loads(pickle.dumps(shown))
        assert again.pixels.tolist() == mapped.tolist()
        assert isinstance(again.pixels, np.memmap) == isinstance(pixels, np.memmap)


@pytest.mark.parametrize(
    ("cores", "team", "expected"), [(2, "1", 1), (4, "1", 3), (64, "1", 8), (8, "2", 3), (1, "1", 1)]
)
def test_workers_leave_one_core_for_the_network(cores: int, team: str, expected: int, monkeypatch):
    monkeypatch.setattr(loader, "available_cores", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", team)
    assert loader.default_workers() == expected
