"""The real ISIC 2018 training set, where it is: known counts, and no lesion on two sides."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.split import leaking_lesions
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data import splits
from skinlesion_cli.data.near_duplicates import find_pairs
from skinlesion_cli.progress import SilentReporter
from skinlesion_cli.stages.download.stage import DownloadSettings, run
from tests.support.class_lists import ISIC2018

pytestmark = pytest.mark.isic
CLASS_COUNTS = {"MEL": 1113, "NV": 6705, "BCC": 514, "AKIEC": 327, "BKL": 1099, "DF": 115, "VASC": 142}
# Python's own random numbers on the real ids; 39 % of the images leak on the full set, as published.
LEAKING_TEST_IMAGES = {42: 771, 7: 774, 123: 737}


@pytest.fixture(scope="module")
def dataset(isic_folder, tmp_path_factory) -> tuple[Workspace, Manifest]:
    root = tmp_path_factory.mktemp("isic")
    run(DownloadSettings(workspace=root, source=isic_folder, link=True), SilentReporter())
    return Workspace(root), Manifest.load(Workspace(root).manifest)


def test_counts(dataset):
    workspace, manifest = dataset
    assert len(manifest.table) == 10_015
    assert manifest.n_lesions == 7_470
    assert manifest.class_counts == CLASS_COUNTS
    assert int((manifest.table["age_years"] == "").sum()) == 57
    assert len(list(workspace.images.iterdir())) == 10_015


@pytest.mark.parametrize("seed", [42, 7, 123])
@pytest.mark.parametrize("strategy", ["official", "grouped", "kfold"])
def test_no_lesion_on_two_sides_and_classes_in_proportion(dataset, strategy, seed):
    images = dataset[1].table
    sides = splits.make(strategy, images, seed, 5, leave_out_overlap=False, codes=ISIC2018.codes)
    assert len(sides.parts) == 10_015
    table = splits.table(sides.parts, sides.folds)
    assert leaking_lesions(table, dataset[1]) == []
    label_of = dict(zip(images["id"], images["label"], strict=True))
    side_of = sides.folds or sides.parts
    shares = {"official": {"train": 0.8, "val": 0.2}, "grouped": {"train": 0.6, "val": 0.2, "test": 0.2}}
    for side, share in shares.get(strategy, dict.fromkeys(range(5), 0.2)).items():
        found = Counter(label_of[identity] for identity, where in side_of.items() if where == side)
        # A lesion has at most six images, so no class is further than that from its share.
        assert all(abs(found[name] - share * count) <= 6 for name, count in CLASS_COUNTS.items())


@pytest.mark.parametrize("seed", [42, 7, 123])
def test_the_published_split(dataset, seed):
    images = dataset[1].table
    parts = splits.published(images, seed)
    label_of = dict(zip(images["id"], images["label"], strict=True))
    for name, count in CLASS_COUNTS.items():
        found = Counter(part for identity, part in parts.items() if label_of[identity] == name)
        n_train, n_val = count * 6 // 10, count * 2 // 10
        assert found == {"train": n_train, "val": n_val, "test": count - n_train - n_val}
    assert Counter(parts.values()) == {"train": 6007, "val": 2000, "test": 2008}
    lesion_of = dict(zip(images["id"], images["lesion_id"], strict=True))
    assert len(splits.leaking_images(parts, lesion_of, "test")) == LEAKING_TEST_IMAGES[seed]


def test_the_split_of_seed_42_is_the_same_on_every_machine(dataset):
    parts = splits.grouped(dataset[1].table, 42, codes=ISIC2018.codes)
    assert Counter(parts.values()) == {"train": 6008, "val": 2003, "test": 2004}
    listing = "\n".join(f"{identity} {part}" for identity, part in sorted(parts.items()))
    assert hashlib.sha256(listing.encode()).hexdigest() == (
        "e5cb47d0fd410e3863d55fef0262eea83a048a2e09e2a8621c19d19cd89c5072"
    )


def test_one_photograph_has_two_lesion_ids(dataset):
    """Two files of one photograph, differing in colour only (looked at); and no false alarms around them."""
    workspace, manifest = dataset
    near = ["ISIC_0025226", "ISIC_0030074"]
    sample = manifest.table["id"].tolist()[::20]
    rows = manifest.rows(sorted({*near, *sample}))
    pairs = find_pairs(list(zip(rows["id"], rows["file"], strict=True)), workspace.images, SilentReporter())
    lesion_of = dict(zip(rows["id"], rows["lesion_id"], strict=True))
    assert [
        [pair.first, pair.second] for pair in pairs if lesion_of[pair.first] != lesion_of[pair.second]
    ] == [near]
