"""Combine trained networks: weights, and the merged predictions of the parts that all have predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from skinlesion_cli.artifacts import external_predictions, member_predictions
from skinlesion_cli.artifacts.ensemble import Ensemble, Member
from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.files import exclusive
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.workspace import Workspace, with_metadata
from skinlesion_cli.config.settings import StageSettings, one_of
from skinlesion_cli.decisions.ensemble import METHODS, bacc_weights, combine, equal_weights, stacked_weights
from skinlesion_cli.decisions.statistics import metrics
from skinlesion_cli.decisions.statistics.folds import grouped_folds
from skinlesion_cli.errors import UsageError, name_items
from skinlesion_cli.inference import tta
from skinlesion_cli.inference.exporting import write_graphs
from skinlesion_cli.progress import Reporter
from skinlesion_cli.result import StageResult, Table, counted
from skinlesion_cli.stages.ensemble.members import (
    artifact_of,
    of_test_images,
    require_same,
    trained_members,
    with_patient_data,
    with_views,
)
from skinlesion_cli.stages.ensemble.tables import read_tables

IDENTITY = "identity"
_PARTS = ("val", "test", with_metadata("val"), with_metadata("test"))


class EnsembleSettings(StageSettings):
    """`members` are names of trained networks; empty: all of the workspace. `tta_mode`: views to average.

    `tables` are CSVs of predictions made elsewhere (see `artifacts.external_predictions`); they take the
    place of trained networks, with labels from themselves, from `truth`, or from the manifest. `export`
    False: no ONNX graphs are made.
    """

    workspace: Path
    members: tuple[str, ...] = ()
    tables: tuple[Path, ...] = ()
    truth: Path | None = None
    method: Annotated[str, one_of(METHODS)] = "bacc"
    tta_mode: Annotated[str, one_of(tta.MODES)] = "d4"
    export: bool = True


def run(settings: EnsembleSettings, reporter: Reporter) -> StageResult:
    """Write `ensemble/`: the weights, and merged predictions of validation (and test, where all have it).

    With `export` the networks get the ONNX graphs that they lack, so that prediction needs no torch.
    """
    workspace = Workspace(settings.workspace)
    if settings.tables:
        if settings.members:
            raise UsageError(
                f"tables and trained networks do not mix: {name_items(settings.members)}",
                "Give either tables or trained networks.",
            )
        validation, notes = read_tables(workspace, settings.tables, settings.truth)
        single_view: list[float | None] = [None] * len(validation)
        names, views = [p.source for p in validation], external_predictions.VIEWS
    else:
        names, views = trained_members(workspace, settings.members), tta.MODES[settings.tta_mode]
        read = [member_predictions.read_validation(workspace, name) for name in names]
        validation, notes = [with_views(predictions, views) for predictions in read], []
        single_view = [_single_view(predictions) for predictions in read]
    require_same(validation)
    ensemble = _fit(settings.method, validation, views, single_view)
    with exclusive(workspace.ensemble.parent, "ensemble"):
        sources = {f"predictions:{name}": artifact_of(p) for name, p in zip(names, validation, strict=True)}
        networks = _networks(ensemble, validation)
        written = networks.save(workspace.ensemble, inputs=sources)
        paths = [workspace.ensemble]
        held_out: dict[str, list[Predictions]] = {part: [] for part in _PARTS} | {"val": validation}
        if not settings.tables:
            held_out["test"] = of_test_images(workspace, names, views, reporter)
            held_out |= with_patient_data(workspace, names, views, has_test=bool(held_out["test"]))
        for part, parts in held_out.items():
            path = workspace.ensemble_predictions(part)
            if not parts:
                path.unlink(missing_ok=True)
                continue
            inputs: dict[str, Artifact | str] = {"ensemble": written}
            inputs["split"] = artifact_of(parts[0]).input_sha256("split")
            _merge(parts, ensemble).save(path, inputs=inputs)
            paths.append(path)
    not_exported = (
        write_graphs(workspace, [member.name for member in networks.members], reporter)
        if settings.export
        else {}
    )
    notes += [
        f"{name} has no ONNX graph and predicts with torch, more slowly: {why}"
        for name, why in not_exported.items()
    ]
    return _result(ensemble, paths, notes)


def _fit(
    method: str, validation: Sequence[Predictions], views: Sequence[str], single_view: Sequence[float | None]
) -> Ensemble:
    """Weights, and what the ensemble is worth on the validation images.

    `bacc` weights by the balanced accuracy on the image as it is, without test-time augmentation, of the
    epoch that was kept, as the published system does; of predictions from elsewhere, by that of what they
    hold.
    """
    first = validation[0]
    labels, stack = first.labels, np.stack([p.probabilities for p in validation])
    bacc = [metrics.balanced_accuracy(labels, probabilities.argmax(axis=1)) for probabilities in stack]
    if method == "bacc":
        weights = bacc_weights(
            [
                over_views if alone is None else alone
                for over_views, alone in zip(bacc, single_view, strict=True)
            ]
        )
    elif method == "stacked":
        weights = stacked_weights(labels, stack, first.lesion_ids)
    else:
        weights = equal_weights(len(validation))
    members = tuple(
        Member(p.source, _checkpoint(p), float(weight), _defined(value), single_view_bacc=alone)
        for p, weight, value, alone in zip(validation, weights, bacc, single_view, strict=True)
    )
    ensemble = Ensemble(members, method, tuple(views), {}, classes=first.classes)
    merged = ensemble.merge(stack)
    figures: dict[str, Any] = {
        "validation_bacc": _defined(metrics.balanced_accuracy(labels, merged.argmax(axis=1))),
        "images": len(labels),
        "lesions": len(set(first.lesion_ids)),
        "classes_without_images": list(metrics.missing_classes(labels, first.classes)),
    }
    if method == "stacked":
        figures["cross_fitted_bacc"] = _defined(_cross_fitted_bacc(labels, stack, first.lesion_ids))
    return replace(ensemble, figures=figures)


def _networks(ensemble: Ensemble, validation: Sequence[Predictions]) -> Ensemble:
    """The same ensemble, a member trained in folds replaced by its networks, which share its weight."""
    members: list[Member] = []
    for member, predictions in zip(ensemble.members, validation, strict=True):
        networks = member_predictions.networks(predictions)
        share = replace(member, weight=member.weight / len(networks), member_group=member.name)
        members += [replace(share, name=name, checkpoint_sha256=checkpoint) for name, checkpoint in networks]
    return replace(ensemble, members=tuple(members))


def _cross_fitted_bacc(labels: np.ndarray, stack: np.ndarray, lesion_ids: np.ndarray) -> float:
    """BACC of weights that never saw the lesion that they are judged on."""
    predicted = np.empty(len(labels), dtype=np.int64)
    for train, held_out in grouped_folds(labels, lesion_ids):
        weights = stacked_weights(labels[train], stack[:, train], lesion_ids[train])
        predicted[held_out] = combine(stack[:, held_out], weights).argmax(axis=1)
    return metrics.balanced_accuracy(labels, predicted)


def _single_view(predictions: Predictions) -> float | None:
    """Balanced accuracy on the images as they are; None where that view was not stored, or it is
    undefined.
    """
    if IDENTITY not in predictions.views:
        return None
    of_view = predictions.view_probabilities[:, predictions.views.index(IDENTITY)]
    return _defined(metrics.balanced_accuracy(predictions.labels, of_view.argmax(axis=1)))


def _merge(members: Sequence[Predictions], ensemble: Ensemble) -> Predictions:
    first = members[0]
    stack = np.stack([p.view_probabilities for p in members])
    views = ensemble.merge(stack.reshape(len(members), -1, stack.shape[-1])).reshape(stack.shape[1:])
    groups = np.moveaxis(stack, 0, 1) if len(members) > 1 else None
    source = f"ensemble ({ensemble.method})"
    return Predictions(
        first.table, views, first.views, source, first.part, classes=first.classes, group_probabilities=groups
    )


def _checkpoint(predictions: Predictions) -> str | None:
    return artifact_of(predictions).inputs.get("checkpoint")


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _result(ensemble: Ensemble, paths: Sequence[Path], notes: Sequence[str]) -> StageResult:
    def shown(value: object) -> str:
        return "undefined" if value is None else f"{value:.4f}"

    rows = [
        [m.name, f"{m.weight:.4f}", shown(m.single_view_bacc), shown(m.validation_bacc)]
        for m in ensemble.members
    ]
    rows.append(["ensemble", "", "", shown(ensemble.figures["validation_bacc"])])
    if "cross_fitted_bacc" in ensemble.figures:
        rows.append(["ensemble, weights cross-fitted", "", "", shown(ensemble.figures["cross_fitted_bacc"])])
    missing = ensemble.figures["classes_without_images"]
    warnings = list(notes)
    if missing:
        warnings.append(f"no validation images of {', '.join(missing)}: BACC is the mean of the others")
    return StageResult(
        command="ensemble",
        headline=[
            f"ensemble of {counted(len(ensemble.members), 'member')}, weights by {ensemble.method}, "
            f"{counted(len(ensemble.views), 'view')}, {ensemble.figures['images']:,} validation images "
            f"of {ensemble.figures['lesions']:,} lesions"
        ],
        figures={
            "method": ensemble.method,
            "views": list(ensemble.views),
            "members": [
                {
                    "name": m.name,
                    "weight": m.weight,
                    "single_view_bacc": m.single_view_bacc,
                    "validation_bacc": m.validation_bacc,
                }
                for m in ensemble.members
            ],
            **ensemble.figures,
        },
        tables=[Table("Members", ["member", "weight", "BACC, one view", "BACC, all views"], rows)],
        artifacts=[str(path) for path in paths],
        warnings=warnings,
        next_command="skinlesion calibrate",
    )
