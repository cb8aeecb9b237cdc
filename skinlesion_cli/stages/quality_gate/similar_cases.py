"""The table of similar cases, from features of images that the first network was not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.similar_cases import CaseIds, StoredCases
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.decisions.similar_cases import N_COUNTED, fit_cases
from skinlesion_cli.errors import DataError
from skinlesion_cli.inference.predictor import Predictor
from skinlesion_cli.result import Table


def write_cases(
    workspace: Workspace,
    predictor: Predictor,
    rows: pd.DataFrame,
    features: np.ndarray,
    split: Artifact,
    warnings: list[str],
) -> dict[str, Any] | None:
    """Write the table of similar cases and its ids; None, and a warning, where there are too few lesions.

    `rows` are those of the manifest, in the order of `features`, float32 (n_images, n_features).
    """
    checkpoint = predictor.bundle.members[0]
    labels = rows["label"].map(predictor.bundle.classes.index).to_numpy(np.int64)
    try:
        fitted = fit_cases(
            checkpoint.name, features, labels, rows["lesion_id"].tolist(), predictor.bundle.classes.n_classes
        )
    except DataError as error:
        for path in (workspace.case_ids, workspace.cases):
            path.unlink(missing_ok=True)
        warnings.append(f"no table of similar cases: {error.message}")
        return None
    assert checkpoint.artifact is not None
    figures = {
        "network": checkpoint.name,
        "images": len(rows),
        "lesions": fitted.table.n_lesions,
        "same_label_share": fitted.table.agreement(predictor.bundle.classes),
    }
    # Ids of another table would be refused: without them it is read as that of a packed model.
    workspace.case_ids.unlink(missing_ok=True)
    made = StoredCases(fitted.table, checkpoint.artifact.sha256, figures).save(
        workspace.cases, inputs={"split": split, "checkpoint": checkpoint.artifact}
    )
    images = rows["id"].iloc[fitted.images].tolist()
    CaseIds(fitted.lesion_ids, tuple(images)).save(workspace.case_ids, inputs={"cases": made})
    return figures


def cases_tables(cases: Mapping[str, Any] | None) -> list[Table]:
    """What `write_cases` found, as a table."""
    if cases is None:
        return []
    title = f"Similar cases: {cases['lesions']:,} lesions; of the {N_COUNTED} nearest to one, same class"
    shares = cases["same_label_share"].items()
    rows = [[name, "undefined" if share is None else f"{share:.2f}"] for name, share in shares]
    return [Table(title, ["class", "mean share"], rows)]
