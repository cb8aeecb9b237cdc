"""Patient metadata as numbers. What is not known is all zeros,
which the network learns as a value of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

_SEXES = ("female", "male")
# Body sites of HAM10000; any other counts as not known.
_SITES = (
    "abdomen",
    "acral",
    "back",
    "chest",
    "ear",
    "face",
    "foot",
    "genital",
    "hand",
    "lower extremity",
    "neck",
    "scalp",
    "trunk",
    "upper extremity",
)
_WIDTH = {"age": 2, "sex": len(_SEXES), "site": len(_SITES)}


def n_columns(fields: Sequence[str]) -> int:
    """Width of the encoding of these fields (`age`, `sex`, `site`)."""
    return sum(_WIDTH[field] for field in fields)


def encode(table: pd.DataFrame, fields: Sequence[str]) -> np.ndarray:
    """Metadata of each row, float32 (n, n_columns).

    Parameters
    ----------
    table : text columns `age_years`, `sex`, `site`; empty where unknown.
    fields : which to take. `age` becomes (1, years / 100); `sex` and `site` a 1 in the column of the value.
    """
    blocks = [np.zeros((len(table), 0), dtype=np.float32)]
    for field in fields:
        if field == "age":
            years = pd.to_numeric(table["age_years"], errors="coerce").to_numpy(dtype=np.float32)
            known = np.isfinite(years)
            blocks.append(np.stack([known, np.where(known, years / 100.0, 0.0)], axis=1).astype(np.float32))
        else:
            values = table[field].str.lower().to_numpy(dtype=object)
            names = _SEXES if field == "sex" else _SITES
            blocks.append((values[:, None] == np.array(names, dtype=object)).astype(np.float32))
    return np.concatenate(blocks, axis=1)
