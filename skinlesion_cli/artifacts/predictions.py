"""Stored predictions: probabilities of a network or an ensemble for labelled images, view by view.

Everything after training works on these: ensembling, calibration and evaluation take seconds, need no
network, and never see an image again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np
import pandas as pd
from safetensors.numpy import save

from skinlesion_cli.artifacts import tables
from skinlesion_cli.artifacts.base import Body, Content, StoredArtifact, parsed
from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.legacy import RENAMED_TENSORS
from skinlesion_cli.artifacts.schema import Count, FileName, Text, ViewNames
from skinlesion_cli.artifacts.tensors import load_float32, read_header
from skinlesion_cli.errors import ArtifactError, name_items
from skinlesion_cli.taxonomy.class_list import ClassList

# Probabilities are rounded to float32, and those of several networks are averaged.
_SUM_TOLERANCE = 1e-3


def probability_columns(classes: ClassList) -> tuple[str, ...]:
    """The columns of the probabilities of a list, in its order."""
    return tuple(classes.column(code) for code in classes.codes)


class PredictionsBody(Body):
    """Which network or ensemble predicted which images, at which views."""

    source: Text
    part: FileName
    views: ViewNames
    images: Count


@dataclass(frozen=True)
class Predictions(StoredArtifact):
    """Probabilities for labelled images.

    `table` has the columns `COLUMNS` (all text; `fold` is empty without folds), one row per image.
    `view_probabilities` is float32 of shape (n_images, n_views, n_classes): softmax per TTA view, in the
    order of `views` and `classes`. `source` names the network or ensemble, `part` the part of the
    split. `group_probabilities`, float32 (n_images, n_groups, n_views, n_classes), are those of each member
    group of an ensemble; None where there is a single one.
    """

    KIND: ClassVar[str] = "predictions"
    COLUMNS: ClassVar[tuple[str, ...]] = ("id", "lesion_id", "label", "fold")

    table: pd.DataFrame
    view_probabilities: np.ndarray
    views: tuple[str, ...]
    source: str
    part: str
    classes: ClassList = field(kw_only=True)
    artifact: Artifact | None = field(default=None, compare=False)
    group_probabilities: np.ndarray | None = None

    def __post_init__(self) -> None:
        expected = (len(self.table), len(self.views), self.classes.n_classes)
        groups = self.group_probabilities
        shapes = [self.view_probabilities.shape]
        if groups is not None:
            shapes.append(groups.shape[:1] + groups.shape[2:])
        for shape in shapes:
            if shape != expected:
                raise ArtifactError(f"predictions of {self.source}: shape {shape}, expected {expected}")
        bad = ~np.isfinite(self.view_probabilities).all(axis=(1, 2))
        if groups is not None:
            bad |= ~np.isfinite(groups).all(axis=(1, 2, 3))
        if bad.any():
            raise ArtifactError(
                f"predictions of {self.source} are not finite for {name_items(self.table['id'][bad])}",
                "The network is damaged or was trained with diverging loss; train it again.",
            )

    @property
    def probabilities(self) -> np.ndarray:
        """float32 (n_images, n_classes): the mean over all views."""
        result: np.ndarray = self.view_probabilities.mean(axis=1, dtype=np.float64).astype(np.float32)
        return result

    @property
    def member_groups(self) -> np.ndarray:
        """float32 (n_images, n_groups, n_views, n_classes): of each member group;
        of the only one where there is a single one.
        """
        single = self.view_probabilities[:, None]
        return single if self.group_probabilities is None else self.group_probabilities

    def at(self, rows: Sequence[int] | np.ndarray) -> Predictions:
        """The same predictions of these rows only, in this order."""
        groups = self.group_probabilities
        return replace(
            self,
            table=self.table.iloc[rows].reset_index(drop=True),
            view_probabilities=self.view_probabilities[rows],
            group_probabilities=None if groups is None else groups[rows],
        )

    @property
    def labels(self) -> np.ndarray:
        """int64 (n_images,): class indexes in the order of `classes`."""
        return np.array([self.classes.index[name] for name in self.table["label"]], dtype=np.int64)

    @property
    def lesion_ids(self) -> np.ndarray:
        """Lesion ids, one per image; images of one lesion are not independent."""
        result: np.ndarray = self.table["lesion_id"].to_numpy(dtype=object)
        return result

    @classmethod
    def _from_artifact(cls, artifact: Artifact) -> Self:
        body = parsed(PredictionsBody, artifact)
        table = tables.read_csv(artifact.payload("table"), artifact.path.name)
        tables.require_columns(table, cls.COLUMNS, artifact.path.name)
        if len(table) != body.images:
            raise ArtifactError(
                f"{artifact.path.name} states {body.images} images, but its table has {len(table)}"
            )
        tensors = _tensors(artifact, (len(table), len(body.views), artifact.classes.n_classes))
        unknown = table["id"][~table["label"].isin(artifact.classes.codes)]
        if len(unknown) or table["id"].duplicated().any():
            raise ArtifactError(
                f"{artifact.path.name} names an image twice, or an unknown class for {name_items(unknown)}"
            )
        return cls(
            table=table,
            view_probabilities=tensors["view_probabilities"],
            views=body.views,
            source=body.source,
            part=body.part,
            classes=artifact.classes,
            artifact=artifact,
            group_probabilities=tensors.get("group_probabilities"),
        )

    def _content(self) -> Content:
        # The CSV beside the tensor is for people, with the mean over the views.
        readable = self.table.loc[:, list(self.COLUMNS)].reset_index(drop=True)
        mean = self.probabilities
        for index, column in enumerate(probability_columns(self.classes)):
            readable[column] = tables.shortest(mean[:, index])
        tensors = {"view_probabilities": self.view_probabilities}
        if self.group_probabilities is not None:
            tensors["group_probabilities"] = self.group_probabilities
        tensors = {name: np.ascontiguousarray(tensor, dtype=np.float32) for name, tensor in tensors.items()}
        body = PredictionsBody(source=self.source, part=self.part, views=self.views, images=len(readable))
        return Content(
            body.model_dump(mode="json"),
            payloads={"table": (".csv", tables.to_csv(readable)), "views": (".safetensors", save(tensors))},
            classes=self.classes,
        )


def _tensors(artifact: Artifact, shape: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """The tensors under their present names; `shape` is (n_images, n_views, n_classes)."""
    content, name = artifact.payload("views"), artifact.payloads["views"].name
    shapes: dict[str, tuple[int, ...]] = {"view_probabilities": shape}
    for key, info in read_header(content, name).items():
        if RENAMED_TENSORS.get(key, key) == "group_probabilities" and len(info.shape) == 4:
            shapes[key] = (shape[0], info.shape[1], *shape[1:])
    tensors = load_float32(content, shapes, name)
    for key, tensor in tensors.items():
        # NaN is refused with the ids of its images, see `Predictions`.
        finite = tensor[np.isfinite(tensor).all(axis=-1)]
        if (finite < 0).any() or (np.abs(finite.sum(axis=-1) - 1.0) > _SUM_TOLERANCE).any():
            raise ArtifactError(f"{name}: {key} holds values that are not probabilities")
    if "view_probabilities" not in tensors:
        raise ArtifactError(f"{name} holds no view_probabilities")
    return {RENAMED_TENSORS.get(key, key): tensor for key, tensor in tensors.items()}
