"""Ways to split a dataset. Pure: tables in, parts out; the same for a seed on any machine.

The order in which lesions are dealt out is that of sha256(seed, lesion id): it depends neither on the order
of the rows, nor on a locale, nor on the version of any library's random numbers.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from skinlesion_cli.errors import DataError, name_items
from skinlesion_cli.taxonomy import CLASS_INDEX, CLASS_NAMES

GROUPED_SHARES: Mapping[str, int] = {"train": 60, "val": 20, "test": 20}
OFFICIAL_SHARES: Mapping[str, int] = {"train": 80, "val": 20}


def grouped(images: pd.DataFrame, seed: int, shares: Mapping[str, int] = GROUPED_SHARES) -> dict[str, str]:
    """Split by lesion, stratified by class.

    Every class is dealt out by itself: where it has as many lesions as there are parts, each part gets one,
    then each lesion goes to the part that lacks most images of its share.

    Parameters
    ----------
    images : columns `id`, `label`, `lesion_id`.
    shares : part -> share of the images, in percent.

    Returns
    -------
    dict of id -> part, one entry an image.
    """
    sizes = Counter(images["lesion_id"])
    part_of_lesion: dict[str, str] = {}
    for lesions in _lesions_by_class(images).values():
        ordered = sorted(lesions, key=lambda lesion: _rank(seed, lesion))
        part_of_lesion |= _deal(ordered, sizes, shares)
    return {row.id: part_of_lesion[row.lesion_id] for row in images.itertuples()}


def official(
    images: pd.DataFrame,
    seed: int,
    shares: Mapping[str, int] = OFFICIAL_SHARES,
    *,
    leave_out_overlap: bool = False,
) -> dict[str, str]:
    """The official training images, split by lesion into train and validation; the test set stays the test.

    Images that the source puts nowhere count as training images; the official validation images join the
    validation part.

    Parameters
    ----------
    images : columns `id`, `label`, `lesion_id`, `part` (train, val, test or empty).
    leave_out_overlap : leave training images out whose lesion is in the validation or test set, instead of
        refusing; they get no part.
    """
    given = images["part"].isin(["val", "test"])
    fixed = dict(zip(images.loc[given, "id"], images.loc[given, "part"], strict=True))
    overlap = ~given & images["lesion_id"].isin(set(images.loc[given, "lesion_id"]))
    if overlap.any() and not leave_out_overlap:
        raise DataError(
            "lesions of the official validation or test set are in the training set too: "
            f"{name_items(sorted(set(images.loc[overlap, 'lesion_id'])))}"
        )
    return grouped(images[~given & ~overlap], seed, shares) | fixed


def kfold(images: pd.DataFrame, seed: int, n_folds: int) -> dict[str, int]:
    """Deal lesions into folds of nearly equal size, stratified by class.

    Returns
    -------
    dict of id -> fold (0 to n_folds - 1), one entry an image.

    Raises
    ------
    DataError : there are fewer lesions than folds.
    """
    if images["lesion_id"].nunique() < n_folds:
        raise DataError(f"{n_folds} folds need at least {n_folds} lesions")
    folds = grouped(images, seed, {str(fold): 1 for fold in range(n_folds)})
    return {identity: int(fold) for identity, fold in folds.items()}


def published(images: pd.DataFrame, seed: int) -> dict[str, str]:
    """The published split, bit for bit: by image, 60/20/20 in every class, lesions ignored.

    For comparison with the published figures only: many lesions have images on several sides. All images are
    pooled, the official validation and test sets included.

    Source: daorre1202/skin-lesion-classifier-CNN (2026): one seed, classes in alphabetical order, ids sorted,
    then shuffled by Python's Mersenne Twister.
    """
    generator = random.Random(seed)
    parts: dict[str, str] = {}
    for label in sorted(CLASS_NAMES):
        ids = sorted(images.loc[images["label"] == label, "id"])
        generator.shuffle(ids)
        n_train, n_val = int(len(ids) * 0.6), int(len(ids) * 0.2)
        for position, identity in enumerate(ids):
            part = "train" if position < n_train else "val" if position < n_train + n_val else "test"
            parts[identity] = part
    return parts


def leaking_images(parts: Mapping[str, str], lesion_of: Mapping[str, str], part: str) -> list[str]:
    """Images of one part whose lesion has images in a part that came before it (train, then val, then test)."""
    order = ("train", "val", "test")
    seen = {lesion_of[identity] for identity, name in parts.items() if name in order[: order.index(part)]}
    return sorted(
        identity for identity, name in parts.items() if name == part and lesion_of[identity] in seen
    )


STRATEGIES = ("official", "grouped", "kfold", "published")


@dataclass(frozen=True)
class Sides:
    """A split: id -> part, id -> fold (empty without folds), and the ids that were left out of it."""

    parts: dict[str, str]
    folds: dict[str, int]
    left_out: tuple[str, ...] = ()


def make(strategy: str, images: pd.DataFrame, seed: int, n_folds: int, *, leave_out_overlap: bool) -> Sides:
    """Split by one of `STRATEGIES`.

    With `kfold`, the official test set stays the test and all other images are dealt into folds.

    Parameters
    ----------
    images : columns `id`, `label`, `lesion_id`, `part`.
    leave_out_overlap : see `official`.
    """
    folds: dict[str, int] = {}
    if strategy == "published":
        parts = published(images, seed)
    elif strategy == "grouped":
        parts = grouped(images, seed)
    elif strategy == "official":
        parts = official(images, seed, leave_out_overlap=leave_out_overlap)
    elif strategy == "kfold":
        test_only = images.assign(part=images["part"].where(images["part"] == "test", ""))
        fixed = official(test_only, seed, leave_out_overlap=leave_out_overlap)
        dealt = images[images["id"].map(lambda identity: fixed.get(identity) in ("train", "val"))]
        folds = kfold(dealt, seed, n_folds)
        parts = {identity: "train" if identity in folds else part for identity, part in fixed.items()}
    else:
        raise ValueError(f"unknown strategy {strategy!r}")
    return Sides(parts, folds, tuple(sorted(set(images["id"]) - set(parts))))


def class_counts(images: pd.DataFrame, split_table: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Images of each class in each part, as part -> class -> count; zeros are told."""
    label_of = dict(zip(images["id"], images["label"], strict=True))
    pairs = Counter((row.part, label_of[row.id]) for row in split_table.itertuples())
    return {part: {name: pairs[part, name] for name in CLASS_NAMES} for part in ("train", "val", "test")}


def gaps(images: pd.DataFrame, sides: Sides) -> list[str]:
    """What the user should know: classes that are missing where they will be needed."""
    label_of = dict(zip(images["id"], images["label"], strict=True))
    where = {identity: f"fold {fold}" for identity, fold in sides.folds.items()}
    found: dict[str, set[str]] = defaultdict(set)
    for identity, part in sides.parts.items():
        found[where.get(identity, part)].add(label_of[identity])
    known = [name for name in CLASS_NAMES if name in label_of.values()]
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


def _rank(seed: int, lesion_id: str) -> str:
    return hashlib.sha256(f"{seed}:{lesion_id}".encode()).hexdigest()


def _lesions_by_class(images: pd.DataFrame) -> dict[str, list[str]]:
    """Lesions of each class; one with images of several classes counts to its commonest, then the first."""
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    for row in images.itertuples():
        labels[row.lesion_id][row.label] += 1
    found: dict[str, list[str]] = {name: [] for name in CLASS_NAMES}
    for lesion, counts in labels.items():
        label = min(counts, key=lambda name: (-counts[name], CLASS_INDEX[name]))
        found[label].append(lesion)
    return found


def _deal(lesions: Sequence[str], sizes: Mapping[str, int], shares: Mapping[str, int]) -> dict[str, str]:
    total = sum(sizes[lesion] for lesion in lesions)
    # In hundredths of an image, so that all arithmetic is in whole numbers.
    lacking = {part: share * total for part, share in shares.items()}
    dealt: dict[str, str] = {}
    first = list(shares) if len(lesions) >= len(shares) else []
    for position, lesion in enumerate(lesions):
        part = first[position] if position < len(first) else max(lacking, key=lambda name: lacking[name])
        dealt[lesion] = part
        lacking[part] -= 100 * sizes[lesion]
    return dealt
