"""Ways to split: literal expectations, no lesion on two sides, the same everywhere."""

from __future__ import annotations

import random

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skinlesion_cli.data import splits
from skinlesion_cli.data.groups import split_groups
from skinlesion_cli.errors import DataError
from tests.support.class_lists import ISIC2018


def images_of(rows: list[tuple[str, str, str, str]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["id", "label", "lesion_id", "part"], dtype=str)


def single(label: str, count: int, part: str = "") -> list[tuple[str, str, str, str]]:
    return [(f"{label}{part}{n:04d}", label, f"L{label}{part}{n:04d}", part) for n in range(count)]


def counts(parts: dict[str, str]) -> dict[str, int]:
    return {part: list(parts.values()).count(part) for part in sorted(set(parts.values()))}


def test_lesions_of_one_image_are_dealt_60_20_20_in_every_class():
    images = images_of(single("NV", 100) + single("DF", 10))
    parts = splits.grouped(images, seed=42, codes=ISIC2018.codes)
    assert counts(parts) == {"test": 22, "train": 66, "val": 22}
    assert counts({i: p for i, p in parts.items() if i.startswith("DF")}) == {"test": 2, "train": 6, "val": 2}


def test_the_smallest_classes_reach_every_part_that_they_can():
    for lesions, expected in (
        (1, {"train": 1}),
        (2, {"train": 1, "val": 1}),
        (3, {"test": 1, "train": 1, "val": 1}),
    ):
        assert (
            counts(splits.grouped(images_of(single("VASC", lesions)), seed=0, codes=ISIC2018.codes))
            == expected
        )


def test_the_split_of_a_seed_is_fixed_for_all_time():
    # By `printf 7:LNV0000 | sha256sum` and so on: 71eb, 1954, 87ad, cf58, 2db3. In ascending order that is
    # 1, 4, 0, 2, 3: one to each part, and the others to train, which lacks most.
    parts = splits.grouped(images_of(single("NV", 5)), seed=7, codes=ISIC2018.codes)
    assert parts == {
        "NV0001": "train",
        "NV0004": "val",
        "NV0000": "test",
        "NV0002": "train",
        "NV0003": "train",
    }


def test_neither_the_order_of_rows_nor_other_classes_matter():
    rows = single("NV", 40) + single("MEL", 15)
    expected = splits.grouped(images_of(rows), seed=3, codes=ISIC2018.codes)
    random.Random(0).shuffle(rows)
    assert splits.grouped(images_of(rows), seed=3, codes=ISIC2018.codes) == expected
    alone = splits.grouped(images_of(single("MEL", 15)), seed=3, codes=ISIC2018.codes)
    assert alone == {identity: part for identity, part in expected.items() if identity.startswith("MEL")}
    assert splits.grouped(images_of(rows), seed=4, codes=ISIC2018.codes) != expected


@st.composite
def datasets(draw) -> pd.DataFrame:
    sizes = draw(st.lists(st.integers(1, 6), min_size=3, max_size=60))
    rows = []
    for lesion, size in enumerate(sizes):
        label = draw(st.sampled_from(ISIC2018.codes))
        rows += [(f"I{lesion}_{n}", label, f"L{lesion}", "") for n in range(size)]
    return images_of(rows)


@settings(max_examples=60, deadline=None)
@given(datasets(), st.integers(0, 10_000), st.integers(2, 3))
def test_no_lesion_is_ever_on_two_sides(images, seed, n_folds):
    lesion_of = dict(zip(images["id"], images["lesion_id"], strict=True))
    for strategy in ("official", "grouped", "kfold"):
        sides = splits.make(strategy, images, seed, n_folds, leave_out_overlap=False, codes=ISIC2018.codes)
        assert set(sides.parts) == set(images["id"])
        where: dict[str, set] = {}
        for identity, part in sides.parts.items():
            where.setdefault(lesion_of[identity], set()).add((part, sides.folds.get(identity)))
        assert all(len(found) == 1 for found in where.values())


def test_official_keeps_the_official_test_set_and_joins_the_validation_set():
    rows = single("NV", 10, "train") + single("NV", 3, "val") + single("NV", 4, "test")
    parts = splits.official(images_of(rows), seed=1, codes=ISIC2018.codes)
    assert counts(parts) == {"test": 4, "train": 8, "val": 2 + 3}
    assert all((part == "test") == ("test" in identity) for identity, part in parts.items())


def test_official_refuses_a_lesion_in_training_and_test_unless_told_to_leave_it_out():
    rows = [*single("NV", 5, "train"), ("X", "NV", "LNVtrain0002", "test")]
    with pytest.raises(DataError, match="LNVtrain0002"):
        splits.official(images_of(rows), seed=1, codes=ISIC2018.codes)
    sides = splits.make("official", images_of(rows), 1, 5, leave_out_overlap=True, codes=ISIC2018.codes)
    assert sides.left_out == ("NVtrain0002",)
    assert sides.parts["X"] == "test"


def test_kfold_deals_every_class_evenly_and_leaves_the_test_set_alone():
    rows = single("NV", 50, "train") + single("MEL", 10, "train") + single("NV", 7, "test")
    sides = splits.make("kfold", images_of(rows), 42, 5, leave_out_overlap=False, codes=ISIC2018.codes)
    assert counts(sides.parts) == {"test": 7, "train": 60}
    assert {fold: list(sides.folds.values()).count(fold) for fold in range(5)} == dict.fromkeys(range(5), 12)
    melanomas = [fold for identity, fold in sides.folds.items() if identity.startswith("MEL")]
    assert sorted(melanomas) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert not any("test" in identity for identity in sides.folds)
    table = splits.table(sides.parts, sides.folds)
    assert table.loc[table["part"] == "test", "fold"].eq("").all()


def patients_of(rows: list[tuple[str, str, str, str, str]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["id", "label", "lesion_id", "patient_id", "source"], dtype=str).assign(
        part=""
    )


def test_groups_are_what_lesions_and_patients_connect():
    images = patients_of(
        [
            ("a", "NV", "L3", "P1", ""),
            ("b", "NV", "L2", "P1", ""),
            ("c", "NV", "L2", "P2", ""),
            ("d", "NV", "L1", "P2", ""),
            ("e", "NV", "L4", "", ""),
            ("f", "NV", "L5", "", ""),
            ("g", "NV", "L5", "P3", ""),
        ]
    )
    assert split_groups(images).tolist() == ["L1", "L1", "L1", "L1", "L4", "L5", "L5"]
    assert split_groups(images.assign(patient_id="")).tolist() == images["lesion_id"].tolist()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12), st.sampled_from(ISIC2018.codes)), min_size=40),
    st.integers(0, 1000),
)
def test_no_patient_is_ever_on_two_sides(drawn, seed):
    images = patients_of(
        [(f"I{n}", label, f"L{le}", f"P{p}" if p else "", "s") for n, (le, p, label) in enumerate(drawn)]
    )
    n_groups = split_groups(images).nunique()
    for strategy in ("official", "grouped", "kfold"):
        if strategy == "kfold" and n_groups < 2:
            continue
        sides = splits.make(strategy, images, seed, 2, leave_out_overlap=False, codes=ISIC2018.codes)
        for column in ("lesion_id", "patient_id"):
            where: dict[str, set] = {}
            for row in images.itertuples():
                if getattr(row, column):
                    side = (sides.parts[row.id], sides.folds.get(row.id))
                    where.setdefault(getattr(row, column), set()).add(side)
            assert all(len(found) == 1 for found in where.values())


def test_folds_are_balanced_by_class_although_patients_have_several():
    # 30 patients with three nevi each; ten of them have a melanoma too.
    rows = [(f"n{p}_{n}", "NV", f"L{p}_{n}", f"P{p}", "s") for p in range(30) for n in range(3)]
    rows += [(f"m{p}", "MEL", f"M{p}", f"P{p}", "s") for p in range(10)]
    sides = splits.make("kfold", patients_of(rows), 42, 5, leave_out_overlap=False, codes=ISIC2018.codes)
    melanomas = [fold for identity, fold in sides.folds.items() if identity.startswith("m")]
    assert sorted(melanomas) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert sorted(list(sides.folds.values()).count(fold) for fold in range(5)) == [20] * 5


def test_every_source_is_dealt_out_by_itself():
    rows = [(f"a{n}", "NV", f"A{n}", "", "one") for n in range(60)]
    rows += [(f"b{n}", "NV", f"B{n}", "", "two") for n in range(10)]
    images = patients_of(rows)
    parts = splits.grouped(images, 42, codes=ISIC2018.codes)
    assert counts({i: p for i, p in parts.items() if i.startswith("b")}) == {"test": 2, "train": 6, "val": 2}
    folds = splits.kfold(images, 42, 5)
    assert sorted(fold for identity, fold in folds.items() if identity.startswith("b")) == [
        0, 0, 1, 1, 2, 2, 3, 3, 4, 4,
    ]  # fmt: skip


def test_parts_are_made_of_the_folds_that_leave_no_part_without_a_class():
    rows = [(f"n{fold}", "NV", f"N{fold}", "", "") for fold in range(5)]
    rows += [(f"m{fold}", "MEL", f"M{fold}", "", "") for fold in (2, 3, 4)]
    folds = {identity: int(identity[1]) for identity, *_ in rows}
    parts = splits._parts_of_folds(patients_of(rows), folds, splits.GROUPED_SHARES)
    assert counts(parts) == {"test": 2, "train": 4, "val": 2}
    assert {parts[f"m{fold}"] for fold in (2, 3, 4)} == {"train", "val", "test"}


def test_official_refuses_a_patient_of_the_test_set_in_training():
    images = patients_of(
        [("a", "NV", "L1", "P1", ""), ("b", "NV", "L2", "P1", ""), ("c", "NV", "L3", "", "")]
    )
    images["part"] = ["train", "test", "train"]
    with pytest.raises(DataError, match="L1"):
        splits.official(images, seed=1, codes=ISIC2018.codes)
    assert splits.make("official", images, 1, 5, leave_out_overlap=True, codes=ISIC2018.codes).left_out == (
        "a",
    )


def test_kfold_needs_a_lesion_a_fold():
    with pytest.raises(DataError, match="5 folds"):
        splits.kfold(images_of(single("NV", 4)), seed=0, n_folds=5)


def test_published_is_the_published_code_bit_for_bit():
    # The published code, as its recipe states it, on the module's own generator.
    rows = [row for label in ISIC2018.codes for row in single(label, 13)]
    for seed in (42, 7, 123):
        random.seed(seed)
        expected = {}
        for label in sorted(ISIC2018.codes):
            ids = sorted(f"{label}{n:04d}" for n in range(13))
            random.shuffle(ids)
            n_train, n_val = int(13 * 0.6), int(13 * 0.2)
            expected |= dict.fromkeys(ids[:n_train], "train")
            expected |= dict.fromkeys(ids[n_train : n_train + n_val], "val")
            expected |= dict.fromkeys(ids[n_train + n_val :], "test")
        assert splits.published(images_of(rows), seed) == expected


def test_published_gives_the_published_counts_on_the_full_set():
    # Training + validation + test ground truth: 10,015 + 193 + 1,512 images, 7030 / 2342 / 2348 as published.
    full = {"MEL": 1305, "NV": 7737, "BCC": 622, "AKIEC": 378, "BKL": 1338, "DF": 160, "VASC": 180}
    images = images_of([row for label, count in full.items() for row in single(label, count)])
    assert len(images) == 11_720
    assert counts(splits.published(images, 42)) == {"test": 2348, "train": 7030, "val": 2342}


def test_python_still_shuffles_as_it_did():
    # The well-known result for the numbers 0 to 9 and seed 42; the published split stands on it.
    numbers = list(range(10))
    random.Random(42).shuffle(numbers)
    assert numbers == [7, 3, 2, 8, 5, 6, 9, 4, 0, 1]


def test_leaking_images():
    parts = {"a": "train", "b": "val", "c": "test", "d": "test", "e": "val", "f": "test"}
    lesion_of = {"a": "L1", "b": "L1", "c": "L1", "d": "L2", "e": "L3", "f": "L3"}
    assert splits.leaking_images(parts, lesion_of, "val") == ["b"]
    assert splits.leaking_images(parts, lesion_of, "test") == ["c", "f"]


def test_missing_classes_are_told():
    images = images_of(single("NV", 20) + single("DF", 2))
    sides = splits.make("grouped", images, 0, 5, leave_out_overlap=False, codes=ISIC2018.codes)
    assert splits.gaps(images, sides, codes=ISIC2018.codes) == [
        "test has no images of DF: figures for them will be undefined"
    ]
