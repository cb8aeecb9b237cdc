"""Members whose predictions were made elsewhere and come as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from skinlesion_cli.artifacts import external_predictions, external_tables, external_truth
from skinlesion_cli.artifacts.class_list import class_list_of
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.errors import UsageError, name_items
from skinlesion_cli.taxonomy.mapping import ClassMapping, mapping_between
from skinlesion_cli.taxonomy.shipped import SHIPPED, shipped


def read_tables(
    workspace: Workspace, paths: Sequence[Path], truth_path: Path | None
) -> tuple[list[Predictions], list[str]]:
    """Predictions of each table by the classes of the workspace, rows in the order of the first one; and what
    the user has to know of them.

    Labels are those of `truth_path`, else of the manifest, else of the tables themselves.

    Raises
    ------
    UsageError : two tables have the same name.
    SkinLesionError : a table cannot be read, or its classes do not map onto those of the workspace.
    """
    classes = class_list_of(workspace)
    truth = external_truth.find_truth(truth_path, workspace.manifest, classes)
    tables, mapped = [], []
    for path in paths:
        # A model of finer classes counts by sums of its probabilities; its columns tell which classes it has.
        fine = external_tables.list_of_table(path, (classes, *map(shipped, SHIPPED)))
        table = external_predictions.read_predictions(path, truth, classes=fine, label_classes=classes)
        if not fine.agrees_with(classes):
            mapping = mapping_between(fine, classes)
            mapped += [f"{table.predictions.source}: {sentence}" for sentence in mapping.sentences()]
            table = replace(table, predictions=_coarser(table.predictions, mapping))
        tables.append(table)
    names = [table.predictions.source for table in tables]
    if len(set(names)) < len(names):
        raise UsageError(f"tables need names of their own: {name_items(names)}")
    order = tables[0].predictions.table["id"].tolist()
    notes = [
        "the tables do not say whether their models were trained on these images: make sure they were not"
    ]
    notes += mapped
    if not all(table.lesions_known for table in tables):
        notes.append("no lesion ids: every image counts as a lesion of its own")
    return [_in_order(table.predictions, order) for table in tables], notes


def _coarser(predictions: Predictions, mapping: ClassMapping) -> Predictions:
    values = mapping.probabilities(predictions.view_probabilities)
    return replace(predictions, view_probabilities=values, classes=mapping.coarse)


def _in_order(predictions: Predictions, ids: list[str]) -> Predictions:
    """Rows in this order, where both name the same images; else as they are, for `require_same` to refuse."""
    mine = predictions.table["id"].tolist()
    if mine == ids or set(mine) != set(ids):
        return predictions
    place = {identity: row for row, identity in enumerate(mine)}
    rows = [place[identity] for identity in ids]
    return predictions.at(rows)
