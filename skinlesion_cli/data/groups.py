"""What must stay together when images are divided: all images of a patient, and all of a lesion."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def connected(names: Iterable[str], links: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Each name -> the smallest name that it is linked with, directly or through others."""
    ordered = sorted(set(names))
    position = {name: number for number, name in enumerate(ordered)}
    pairs = np.array([(position[one], position[two]) for one, two in links], dtype=np.intp).reshape(-1, 2)
    edges = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(ordered), len(ordered)))
    component = connected_components(edges, directed=False)[1]
    smallest: dict[int, str] = {}
    return {name: smallest.setdefault(int(component[number]), name) for number, name in enumerate(ordered)}


def split_groups(images: pd.DataFrame) -> pd.Series:
    """The group of each image (index of `images`): images that share a lesion or a patient are in one.

    Lesions of one patient are joined, and patients who share a lesion id. A group is named after its smallest
    lesion id; where no patient is known, groups are the lesions.

    Parameters
    ----------
    images : column `lesion_id` and, where known, `patient_id` (empty: unknown).
    """
    lesions = images["lesion_id"]
    if "patient_id" not in images or not (images["patient_id"] != "").any():
        return lesions.astype(object)
    known = images.loc[images["patient_id"] != "", ["patient_id", "lesion_id"]].drop_duplicates()
    first = known.groupby("patient_id")["lesion_id"].transform("first")
    return lesions.map(connected(lesions, zip(first, known["lesion_id"], strict=True))).astype(object)
