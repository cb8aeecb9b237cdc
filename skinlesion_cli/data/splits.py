"""Ways to split a dataset. Pure: tables in, parts out; the same for a seed on any machine.

What is divided are groups (`groups.split_groups`): the images of a lesion stay together, and those of a
patient. The order in which groups are dealt out is that of sha256(seed, group): it depends neither on the
order of the rows, nor on a locale, nor on the version of any library's random numbers. Splits are stratified
by class and, where images come from several sources, by source.
"""

from __future__ import annotations

import hashlib
import random
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import gcd

import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from skinlesion_cli.data.groups import split_groups
from skinlesion_cli.errors import DataError, name_items

GROUPED_SHARES: Mapping[str, int] = {"train": 60, "val": 20, "test": 20}
OFFICIAL_SHARES: Mapping[str, int] = {"train": 80, "val": 20}


def grouped(
    images: pd.DataFrame,
    seed: int,
    shares: Mapping[str, int] = GROUPED_SHARES,
    *,
    codes: Sequence[str],
) -> dict[str, str]:
    """Split by lesion and patient, stratified by class and source.

    Where every group is of one stratum (lesions, as a rule), strata are dealt out one by one: where there are
    as many groups as parts, each part gets one, then each group goes to the part that is furthest below its
    share of the images. Where groups are of several (patients), they are dealt into small folds of equal
    make-up (`kfold`), and the parts are made of these.

    Parameters
    ----------
    images : columns `id`, `label`, `lesion_id`; `patient_id` and `source` where known.
    shares : part -> share of the images, in percent.
    codes : the classes in the order of their list, which decides where strata are equally rare.

    Returns
    -------
    dict of id -> part, one entry per image.
    """
    group_of = split_groups(images)
    strata = pd.Series(_strata(images), index=images.index, dtype=object)
    n_folds = sum(shares.values()) // gcd(*shares.values())
    if strata.groupby(group_of).nunique().max() > 1 and group_of.nunique() >= n_folds:
        return _parts_of_folds(images, kfold(images, seed, n_folds), shares)
    sizes = Counter(group_of)
    part_of_group: dict[str, str] = {}
    for groups in _groups_by_stratum(images, group_of, codes).values():
        ordered = sorted(groups, key=lambda group: rank(seed, group))
        part_of_group |= _deal(ordered, sizes, shares)
    return {identity: part_of_group[group] for identity, group in zip(images["id"], group_of, strict=True)}


def _parts_of_folds(
    images: pd.DataFrame, folds: Mapping[str, int], shares: Mapping[str, int]
) -> dict[str, str]:
    """Parts that are made of whole folds, such that as few as can be lack a stratum;
    all others are the first part.
    """
    unit = gcd(*shares.values())
    first, *others = shares
    wanted = [part for part in others for _ in range(shares[part] // unit)]
    present: dict[int, set[tuple[str, str]]] = defaultdict(set)
    for identity, stratum in zip(images["id"], _strata(images), strict=True):
        present[folds[identity]].add(stratum)

    def coverage(chosen: tuple[int, ...]) -> int:
        part_of = dict(zip(chosen, wanted, strict=True))
        held = {(part_of.get(fold, first), stratum) for fold, known in present.items() for stratum in known}
        return len(held)

    # max takes the first of equals, so that the choice is the same everywhere.
    chosen = max(permutations(sorted(present), len(wanted)), key=coverage)
    part_of = dict(zip(chosen, wanted, strict=True))
    return {identity: part_of.get(fold, first) for identity, fold in folds.items()}


def official(
    images: pd.DataFrame,
    seed: int,
    shares: Mapping[str, int] = OFFICIAL_SHARES,
    *,
    codes: Sequence[str],
    leave_out_overlap: bool = False,
) -> dict[str, str]:
    """The official training images, split into train and validation as by `grouped`;
    the test set stays the test.

    Images without a part in the source count as training images; the official validation images join the
    validation part.

    Parameters
    ----------
    images : columns as for `grouped`, and `part` (train, val, test or empty).
    leave_out_overlap : leave out training images whose lesion or patient is in the validation or test set,
        instead of refusing; they get no part.

    Raises
    ------
    DataError : lesions or patients of the validation or test set are in the training set too, or in both.
    """
    given = images["part"].isin(["val", "test"])
    fixed = dict(zip(images.loc[given, "id"], images.loc[given, "part"], strict=True))
    group_of = split_groups(images)
    parts_of_group = images.loc[given, "part"].groupby(group_of[given]).nunique()
    both = set(parts_of_group.index[parts_of_group > 1])
    overlap = ~given & group_of.isin(set(group_of[given]))
    if (both or overlap.any()) and not leave_out_overlap:
        concerned = sorted(set(images.loc[overlap | group_of.isin(both), "lesion_id"]))
        raise DataError(
            "lesions or patients of the official validation or test set are in another part too; "
            f"their lesions: {name_items(concerned)}"
        )
    return grouped(images[~given & ~overlap], seed, shares, codes=codes) | fixed


def kfold(images: pd.DataFrame, seed: int, n_folds: int) -> dict[str, int]:
    """Deal lesions and patients into folds of nearly equal size, stratified by class and source.

    Returns
    -------
    dict of id -> fold (0 to n_folds - 1), one entry per image.

    Raises
    ------
    DataError : there are fewer groups than folds.
    """
    group_of = split_groups(images)
    if group_of.nunique() < n_folds:
        raise DataError(f"{n_folds} folds need at least {n_folds} lesions of different patients")
    table = pd.DataFrame(
        {
            "id": images["id"],
            "group": group_of.map({group: rank(seed, group) for group in set(group_of)}),
            "stratum": [" ".join(stratum) for stratum in _strata(images)],
        }
    ).sort_values(["group", "id"])
    if table["stratum"].value_counts().max() < n_folds:
        # scikit-learn refuses strata that are all smaller than the number of folds.
        table["stratum"] = "all"
    with warnings.catch_warnings():
        # That a class has fewer images than there are folds is said by `gaps`.
        warnings.filterwarnings("ignore", message="The least populated class")
        # Without shuffling, groups of equal shape are dealt out in the order of their names,
        # here that of `rank`.
        folds = StratifiedGroupKFold(n_folds).split(table, table["stratum"], table["group"])
        held_out = [table["id"].to_numpy()[test] for _, test in folds]
    return {str(identity): fold for fold, ids in enumerate(held_out) for identity in ids}


def published(images: pd.DataFrame, seed: int) -> dict[str, str]:
    """The published split, bit for bit: by image, 60/20/20 in every class, lesions ignored.

    For comparison with the published figures only: many lesions have images on several sides. All images are
    pooled, the official validation and test sets included.

    Source: daorre1202/skin-lesion-classifier-CNN (2026): one seed, classes in alphabetical order, ids sorted,
    then shuffled by Python's Mersenne Twister.
    """
    generator = random.Random(seed)
    parts: dict[str, str] = {}
    for label in sorted(set(images["label"])):
        ids = sorted(images.loc[images["label"] == label, "id"])
        generator.shuffle(ids)
        n_train, n_val = int(len(ids) * 0.6), int(len(ids) * 0.2)
        for position, identity in enumerate(ids):
            part = "train" if position < n_train else "val" if position < n_train + n_val else "test"
            parts[identity] = part
    return parts


def leaking_images(parts: Mapping[str, str], group_of: Mapping[str, str], part: str) -> list[str]:
    """Images of one part whose group has images in a part
    that came before it (train, then val, then test).
    """
    order = ("train", "val", "test")
    seen = {group_of[identity] for identity, name in parts.items() if name in order[: order.index(part)]}
    return sorted(identity for identity, name in parts.items() if name == part and group_of[identity] in seen)


STRATEGIES = ("official", "grouped", "kfold", "published")


@dataclass(frozen=True)
class Sides:
    """A split: id -> part, id -> fold (empty without folds), and the ids that were left out of it."""

    parts: dict[str, str]
    folds: dict[str, int]
    left_out: tuple[str, ...] = ()


def make(
    strategy: str,
    images: pd.DataFrame,
    seed: int,
    n_folds: int,
    *,
    leave_out_overlap: bool,
    codes: Sequence[str],
) -> Sides:
    """Split by one of `STRATEGIES`.

    With `kfold`, the official test set stays the test and all other images are dealt into folds.

    Parameters
    ----------
    images : columns `id`, `label`, `lesion_id`, `part`.
    leave_out_overlap : see `official`. codes : see `grouped`.
    """
    folds: dict[str, int] = {}
    if strategy == "published":
        parts = published(images, seed)
    elif strategy == "grouped":
        parts = grouped(images, seed, codes=codes)
    elif strategy == "official":
        parts = official(images, seed, codes=codes, leave_out_overlap=leave_out_overlap)
    elif strategy == "kfold":
        test_only = images.assign(part=images["part"].where(images["part"] == "test", ""))
        fixed = official(test_only, seed, codes=codes, leave_out_overlap=leave_out_overlap)
        dealt = images[images["id"].map(lambda identity: fixed.get(identity) in ("train", "val"))]
        folds = kfold(dealt, seed, n_folds)
        parts = {identity: "train" if identity in folds else part for identity, part in fixed.items()}
    else:
        raise ValueError(f"unknown strategy {strategy!r}")
    return Sides(parts, folds, tuple(sorted(set(images["id"]) - set(parts))))


def class_counts(
    images: pd.DataFrame, split_table: pd.DataFrame, *, codes: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Images of each class in each part, as part -> class -> count; zeros included."""
    label_of = dict(zip(images["id"], images["label"], strict=True))
    pairs = Counter((row.part, label_of[row.id]) for row in split_table.itertuples())
    return {part: {name: pairs[part, name] for name in codes} for part in ("train", "val", "test")}


def gaps(images: pd.DataFrame, sides: Sides, *, codes: Sequence[str]) -> list[str]:
    """What the user should know: classes that are missing where they will be needed."""
    label_of = dict(zip(images["id"], images["label"], strict=True))
    where = {identity: f"fold {fold}" for identity, fold in sides.folds.items()}
    found: dict[str, set[str]] = defaultdict(set)
    for identity, part in sides.parts.items():
        found[where.get(identity, part)].add(label_of[identity])
    known = [name for name in codes if name in label_of.values()]
    notes = []
    for side in sorted(found):
        missing = [name for name in known if name not in found[side]]
        if missing:
            notes.append(f"{side} has no images of {', '.join(missing)}: figures for them will be undefined")
    return notes


def table(parts: Mapping[str, str], folds: Mapping[str, int] | None = None) -> pd.DataFrame:
    """The split as a table: columns `id`, `part`, `fold` (text, empty without folds), sorted by id."""
    ids = sorted(parts)
    fold_of = folds or {}
    return pd.DataFrame(
        {
            "id": ids,
            "part": [parts[identity] for identity in ids],
            "fold": [str(fold_of[identity]) if identity in fold_of else "" for identity in ids],
        },
        dtype=str,
    )


def rank(seed: int, group: str) -> str:
    """What groups are ordered by before they are dealt out."""
    return hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()


def _strata(images: pd.DataFrame) -> list[tuple[str, str]]:
    """(source, class) of each image."""
    sources = images["source"] if "source" in images else [""] * len(images)
    return list(zip(sources, images["label"], strict=True))


def _groups_by_stratum(
    images: pd.DataFrame, group_of: pd.Series, codes: Sequence[str]
) -> dict[tuple[str, str], list[str]]:
    """Groups of each stratum; one with images of several strata counts to the rarest,
    so that none runs short.
    """
    strata = _strata(images)
    rarity = Counter(strata)
    of_group: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for group, stratum in zip(group_of, strata, strict=True):
        of_group[group].add(stratum)
    by_stratum: dict[tuple[str, str], list[str]] = defaultdict(list)
    for group, known in of_group.items():
        rarest = min(known, key=lambda stratum: (rarity[stratum], codes.index(stratum[1]), stratum[0]))
        by_stratum[rarest].append(group)
    return by_stratum


def _deal(groups: Sequence[str], sizes: Mapping[str, int], shares: Mapping[str, int]) -> dict[str, str]:
    total = sum(sizes[group] for group in groups)
    # In hundredths of an image, so that all arithmetic is in whole numbers.
    lacking = {part: share * total for part, share in shares.items()}
    dealt: dict[str, str] = {}
    first = list(shares) if len(groups) >= len(shares) else []
    for position, group in enumerate(groups):
        part = first[position] if position < len(first) else max(lacking, key=lambda name: lacking[name])
        dealt[group] = part
        lacking[part] -= 100 * sizes[group]
    return dealt
