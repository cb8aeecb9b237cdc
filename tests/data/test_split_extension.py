"""Sides of images that join a dataset which is split already."""

from __future__ import annotations

import pandas as pd
import pytest

from skinlesion_cli.data.split_extension import extended
from skinlesion_cli.errors import DataError


def test_images_set_aside_for_the_test_are_never_trained_on():
    old = pd.DataFrame(
        [("a", "NV", "L1", ""), ("b", "NV", "L2", "")],
        columns=["id", "label", "lesion_id", "part"],
        dtype=str,
    )
    new = pd.DataFrame(
        [
            ("t", "NV", "L3", "test"),
            ("u", "NV", "L3", ""),
            ("v", "NV", "L4", "val"),
            ("w", "NV", "L1", "test"),
        ],
        columns=["id", "label", "lesion_id", "part"],
        dtype=str,
    )

    def sides(folds: tuple[str, str]) -> dict[str, tuple[str, str]]:
        table = pd.DataFrame({"id": ["a", "b"], "part": "train", "fold": list(folds)}, dtype=str)
        return {row.id: (row.part, row.fold) for row in extended(new, old, table, 42).itertuples()}

    assert sides(("", "")) == {"t": ("test", ""), "u": ("test", ""), "v": ("val", ""), "w": ("train", "")}
    assert sides(("0", "1")) == {
        "t": ("test", ""),
        "u": ("test", ""),
        "v": ("train", "0"),
        "w": ("train", "0"),
    }


def test_what_ties_two_sides_together_is_named():
    old = pd.DataFrame(
        {"id": ["a", "b"], "label": "NV", "lesion_id": ["L1", "L2"], "part": "", "patient_id": ""}
    )
    new = pd.DataFrame(
        {"id": ["x", "y"], "label": "NV", "lesion_id": ["L1", "L2"], "part": "", "patient_id": ["P", "P"]}
    )
    table = pd.DataFrame({"id": ["a", "b"], "part": ["train", "val"], "fold": ["", ""]})
    with pytest.raises(DataError, match="x, y"):
        extended(new, old, table, 42)


def test_new_files_of_the_same_content_stay_together_under_different_lesion_ids():
    """Dealt lesion by lesion, four lesions would go to folds 0 and 1 in turn: the copies, too."""
    old = pd.DataFrame({"id": ["a", "b"], "label": "NV", "lesion_id": ["L1", "L2"], "part": ""}, dtype=str)
    table = pd.DataFrame({"id": ["a", "b"], "part": "train", "fold": ["0", "1"]}, dtype=str)
    for seed in range(8):
        new = pd.DataFrame(
            {
                "id": ["p", "q", "r", "s", "t"],
                "label": "NV",
                "lesion_id": ["L3", "L4", "L5", "L6", "L1"],
                "part": "",
                "sha256": ["same", "same", "c", "d", "same"],
            },
            dtype=str,
        )
        sides = {row.id: row.fold for row in extended(new, old, table, seed).itertuples()}
        assert sides["p"] == sides["q"]
        # The lesion that was there keeps its side.
        assert sides["t"] == "0"
