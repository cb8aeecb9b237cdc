"""Where images go that join a dataset which is split already. Pure, as `splits`."""

from __future__ import annotations

from collections import defaultdict

import pandas as pd

from skinlesion_cli.data.groups import connected, split_groups
from skinlesion_cli.data.splits import kfold, rank
from skinlesion_cli.errors import DataError, name_items


def extended(
    new: pd.DataFrame, old: pd.DataFrame, split_table: pd.DataFrame, seed: int, *, leaks: bool = False
) -> pd.DataFrame:
    """Part and fold of images that join a dataset which is split already; no image that was there moves.

    Images of a lesion or patient that is there go to its side. New groups with images that their source sets
    aside for the test go to test (for validation: to validation, where there are no folds); all others train,
    with a fold each, as by `kfold`, where there are folds. Files of the same content stay together, whatever
    lesions they are said to show.

    Parameters
    ----------
    new, old : columns as for `official`, and of new ones, where known, `sha256`; ids differ.
    split_table : columns `id`, `part`, `fold` of the images that were there.
    leaks : the split does not keep lesions together; new images of such lesions train.

    Returns
    -------
    Columns `id`, `part`, `fold` (text) of the new images.

    Raises
    ------
    DataError : new images tie lesions or patients of different sides together.
    """
    group_of = split_groups(pd.concat([old, new], ignore_index=True))
    old_group = dict(zip(old["id"], group_of[: len(old)], strict=True))
    new = new.assign(group=group_of[len(old) :].to_numpy())
    sides: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for row in split_table.itertuples():
        sides[old_group[row.id]].add((row.part, row.fold))
    torn = new[[len(sides.get(group, ())) > 1 for group in new["group"]]]
    if len(torn) and not leaks:
        raise DataError(
            f"these images tie lesions or patients together that are on different sides of the split: "
            f"{name_items(torn['id'])}",
            "Make a new dataset of both sources, or remove these images from the new one.",
        )
    n_folds = len(set(split_table["fold"]) - {""})
    side_of = {group: min(known) if len(known) == 1 else ("train", "") for group, known in sides.items()}
    new = new.assign(group=_copies_together(new, set(side_of)))
    unseen = new[~new["group"].isin(set(side_of))]
    aside = unseen.groupby("group")["part"].agg(lambda parts: _set_aside(set(parts), n_folds))
    side_of |= {group: (part, "") for group, part in aside.items() if part != "train"}
    dealt = unseen[~unseen["group"].isin(set(side_of))]
    if dealt["group"].nunique() >= n_folds > 0:
        folds = kfold(dealt, seed, n_folds)
        fold_of = {
            group: folds[identity] for identity, group in zip(dealt["id"], dealt["group"], strict=True)
        }
    else:
        ranked = sorted(set(dealt["group"]), key=lambda group: rank(seed, group))
        fold_of = {group: position % max(n_folds, 1) for position, group in enumerate(ranked)}
    side_of |= {group: ("train", str(fold) if n_folds else "") for group, fold in fold_of.items()}
    rows = [(identity, *side_of[group]) for identity, group in zip(new["id"], new["group"], strict=True)]
    return pd.DataFrame(rows, columns=["id", "part", "fold"], dtype=str)


def _copies_together(new: pd.DataFrame, with_a_side: set[str]) -> pd.Series:
    """The group of each new image; groups without a side yet that hold the same file are joined."""
    free = new[~new["group"].isin(with_a_side)]
    if "sha256" not in new or not free["sha256"].duplicated().any():
        return new["group"]
    first = free.groupby("sha256")["group"].transform("first")
    joined = connected(free["group"], zip(first, free["group"], strict=True))
    return new["group"].map(lambda group: joined.get(group, group))


def _set_aside(parts: set[str], n_folds: int) -> str:
    if "test" in parts:
        return "test"
    return "val" if "val" in parts and not n_folds else "train"
