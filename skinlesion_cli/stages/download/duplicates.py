"""Near duplicates of a dataset: the table that is stored, and what the user is told."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.near_duplicates import Duplicates
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.data.near_duplicates import Pair
from skinlesion_cli.errors import name_items


def pair_table(pairs: Sequence[Pair], manifest: Manifest, split: Split) -> pd.DataFrame:
    """The pairs with the columns of `Duplicates`, in their order."""
    lesion_of = dict(zip(manifest.table["id"], manifest.table["lesion_id"], strict=True))
    sides = split.table["part"] + "/" + split.table["fold"]
    side_of = dict(zip(split.table["id"], sides, strict=True))

    def yes(condition: bool) -> str:
        return "yes" if condition else "no"

    rows = []
    for pair in pairs:
        first, second = side_of.get(pair.first), side_of.get(pair.second)
        same_lesion = yes(lesion_of[pair.first] == lesion_of[pair.second])
        across = yes(first is not None and second is not None and first != second)
        cells = (
            pair.first,
            pair.second,
            str(pair.distance_bits),
            f"{pair.correlation:.4f}",
            same_lesion,
            across,
        )
        rows.append(cells)
    return pd.DataFrame(rows, columns=list(Duplicates.COLUMNS), dtype=str)


def notes_about(duplicates: Duplicates) -> list[str]:
    """Notes for the user: pairs under different lesion ids, and on two sides of the split."""
    if not duplicates.n_across_lesions:
        return []
    table = duplicates.table[duplicates.table["same_lesion"] == "no"]
    named = name_items(f"{row.first} = {row.second}" for row in table.itertuples())
    notes = [f"near duplicates under different lesion ids: {named}"]
    if duplicates.n_across_parts:
        notes.append(
            f"{duplicates.n_across_parts:,} pairs of near duplicates lie on two sides of the split; "
            "--move-duplicates keeps them together"
        )
    return notes


def notes_about_copies(manifest: Manifest, split: Split, advice: str) -> list[str]:
    """A note on images that are, byte for byte, an image on another side of the split, and what to do."""
    side = split.table["part"] + "/" + split.table["fold"]
    images = manifest.table.merge(split.table.assign(side=side)[["id", "side"]], on="id")
    copied = images.groupby("sha256")["side"].transform("nunique") > 1
    if split.leaks_lesions or not copied.any():
        return []
    return [
        f"{int(copied.sum()):,} images have the same content as an image on another side of the split, "
        f"under another lesion id: {name_items(images.loc[copied, 'id'])}; {advice}"
    ]
