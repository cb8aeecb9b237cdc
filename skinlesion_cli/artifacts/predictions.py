"""Stored predictions: what a network or an ensemble says of labelled images, view by view.

Everything after training works on these: ensembling, calibration and evaluation take seconds, need no
network, and never see an image again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load, save

from skinlesion_cli.artifacts import tables
from skinlesion_cli.artifacts.envelope import Artifact, read_artifact, understanding, write_artifact
from skinlesion_cli.errors import ArtifactError, name_items
from skinlesion_cli.taxonomy import CLASS_INDEX, CLASS_NAMES, N_CLASSES

KIND = "predictions"
SCHEMA_VERSION = 1
COLUMNS = ("id", "lesion_id", "label", "fold")
PROBABILITY_COLUMNS = tuple(f"p_{name}" for name in CLASS_NAMES)


@dataclass(frozen=True)
class Predictions:
    """Probabilities for labelled images.

    `table` has the columns `COLUMNS` (all text; `fold` is empty without folds), one row an image.
    `view_probabilities` is float32 of shape (n_images, n_views, 7): softmax per TTA view, in the order of
    `views`. `source` names who predicted; `part` which images these are.
    """

    table: pd.DataFrame
    view_probabilities: np.ndarray
    views: tuple[str, ...]
    source: str
    part: str
    artifact: Artifact | None = None

    def __post_init__(self) -> None:
        expected = (len(self.table), len(self.views), N_CLASSES)
        if self.view_probabilities.shape != expected:
            raise ArtifactError(
                f"predictions of {self.source}: shape {self.view_probabilities.shape}, expected {expected}"
            )
        bad = ~np.isfinite(self.view_probabilities).all(axis=(1, 2))
        if bad.any():
            raise ArtifactError(
                f"predictions of {self.source} are not finite for {name_items(self.table['id'][bad])}",
                "The network is damaged or was trained with diverging loss; train it again.",
            )

    @property
    def probabilities(self) -> np.ndarray:
        """float32 (n_images, 7): the mean over all views."""
        return self.view_probabilities.mean(axis=1, dtype=np.float64).astype(np.float32)

    @property
    def labels(self) -> np.ndarray:
        """int64 (n_images,): class indexes in the order of `CLASS_NAMES`."""
        return np.array([CLASS_INDEX[name] for name in self.table["label"]], dtype=np.int64)

    @property
    def lesion_ids(self) -> np.ndarray:
        """Lesion ids, one an image; images of one lesion are no independent evidence."""
        return self.table["lesion_id"].to_numpy(dtype=object)


def write(path: Path, predictions: Predictions, *, inputs: Mapping[str, Artifact | str]) -> Artifact:
    """Write predictions; the CSV beside the tensor is for people, with the mean over the views."""
    readable = predictions.table.loc[:, list(COLUMNS)].reset_index(drop=True)
    mean = predictions.probabilities
    for index, column in enumerate(PROBABILITY_COLUMNS):
        readable[column] = tables.shortest(mean[:, index])
    tensor = np.ascontiguousarray(predictions.view_probabilities, dtype=np.float32)
    return write_artifact(
        path,
        kind=KIND,
        schema_version=SCHEMA_VERSION,
        body={
            "source": predictions.source,
            "part": predictions.part,
            "views": list(predictions.views),
            "images": len(readable),
        },
        payloads={
            "table": (".csv", tables.to_csv(readable)),
            "views": (".safetensors", save({"view_probabilities": tensor})),
        },
        inputs=inputs,
    )


@understanding
def read(path: Path, *, hint: str = "") -> Predictions:
    """Read and verify stored predictions."""
    artifact = read_artifact(path, kind=KIND, schema_version=SCHEMA_VERSION, hint=hint)
    table = tables.read_csv(artifact.payloads["table"], path.name)
    tables.require_columns(table, COLUMNS, path.name)
    try:
        tensor = load(artifact.payloads["views"].read_bytes())["view_probabilities"]
    except (SafetensorError, KeyError) as error:
        raise ArtifactError(f"{artifact.payloads['views'].name} cannot be read: {error}") from None
    return Predictions(
        table=table,
        view_probabilities=tensor,
        views=tuple(artifact.body["views"]),
        source=artifact.body["source"],
        part=artifact.body["part"],
        artifact=artifact,
    )
