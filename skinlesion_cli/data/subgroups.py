"""Groups of patients and images that a model is judged on by themselves."""

from __future__ import annotations

import numpy as np
import pandas as pd

AGE_BANDS = ((0, 30, "under 30"), (30, 50, "30-49"), (50, 70, "50-69"), (70, 200, "70 and over"))


def by_patient(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Name of each group by source, sex, site and age -> bool (n_rows,); what is not known is a group too.

    Images of one source alone are no group. `rows` has the columns `sex`, `site`, `age_years` and `source` of
    the manifest, all text.
    """
    masks: dict[str, np.ndarray] = {}
    several = "source" in rows and rows["source"].nunique() > 1
    for column in ("source", "sex", "site") if several else ("sex", "site"):
        for value in sorted(set(rows[column])):
            masks[f"{column}: {value or 'unknown'}"] = (rows[column] == value).to_numpy()
    age = pd.to_numeric(rows["age_years"], errors="coerce").to_numpy(dtype=float)
    for low, high, name in AGE_BANDS:
        masks[f"age: {name}"] = (age >= low) & (age < high)
    return masks | {"age: unknown": np.isnan(age)}
