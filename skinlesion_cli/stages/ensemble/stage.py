"""Combine trained networks: weights, and the merged predictions of the parts that all have predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from skinlesion_cli.artifacts import external_predictions, member_predictions
from skinlesion_cli.artifacts.class_list import require_same_classes
from skinlesion_cli.artifacts.ensemble import Ensemble, Member
from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.files import exclusive
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.workspace import Workspace, with_metadata
from skinlesion_cli.config.settings import StageSettings, one_of
from skinlesion_cli.decisions.ensemble import METHODS, bacc_weights, combine, equal_weights, stacked_weights
from skinlesion_cli.decisions.statistics import metrics
from skinlesion_cli.decisions.statistics.folds import grouped_folds
from skinlesion_cli.errors import ArtifactError, UsageError, name_items
from skinlesion_cli.inference import tta
from skinlesion_cli.inference.exporting import write_graphs
from skinlesion_cli.progress import Reporter
from skinlesion_cli.result import StageResult, Table, counted
from skinlesion_cli.stages.ensemble.tables import read_tables

IDENTITY = "identity"
HINT = "Train it first: `skinlesion train --arch NAME`."


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
        names, views = _members(workspace, settings.members), tta.MODES[settings.tta_mode]
        read = [member_predictions.read_validation(workspace, name) for name in names]
        validation, notes = [with_views(predictions, views) for predictions in read], []
        single_view = [_single_view(predictions) for predictions in read]
    require_same(validation)
    ensemble = _fit(settings.method, validation, views, single_view)
    with exclusive(workspace.ensemble.parent, "ensemble"):
        sources = {f"predictions:{name}": _artifact(p) for name, p in zip(names, validation, strict=True)}
        networks = _networks(ensemble, validation)
        written = networks.save(workspace.ensemble, inputs=sources)
        paths = [workspace.ensemble]
        held_out = {"val": validation, "test": _test(workspace, names, views, settings, reporter)}
        held_out |= _informed(workspace, names, views, settings, has_test=bool(held_out["test"]))
        for part, parts in held_out.items():
            path = workspace.ensemble_predictions(part)
            if not parts:
                path.unlink(missing_ok=True)
                continue
            inputs: dict[str, Artifact | str] = {"ensemble": written}
            inputs["split"] = _artifact(parts[0]).input_sha256("split")
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


def _members(workspace: Workspace, wanted: Sequence[str]) -> list[str]:
    trained = workspace.members()
    unknown = [name for name in wanted if name not in trained]
    if unknown:
        raise UsageError(
            f"not trained in this workspace: {name_items(unknown)}",
            "Trained: " + (", ".join(trained) or "none") + ". " + HINT,
        )
    names = list(dict.fromkeys(wanted)) or trained
    if not names:
        raise ArtifactError(f"no network is trained in {workspace.root}", workspace.next_step() or HINT)
    return names


def with_views(predictions: Predictions, views: Sequence[str]) -> Predictions:
    """The same predictions with only these views, in this order."""
    missing = [view for view in views if view not in predictions.views]
    if missing:
        raise ArtifactError(
            f"{predictions.source} was predicted with the views {', '.join(predictions.views)}, "
            f"which lack {', '.join(missing)}",
            "Use --tta none, or train that network again.",
        )
    at = [predictions.views.index(view) for view in views]
    return replace(predictions, view_probabilities=predictions.view_probabilities[:, at], views=tuple(views))


def require_same(members: Sequence[Predictions]) -> None:
    """Refuse members that were made on different splits or say something of different images.

    Raises
    ------
    ArtifactError : naming both members and both values.
    """
    first = members[0]
    require_same_classes(
        {member.source: member.classes for member in members},
        "Train all networks of an ensemble on one dataset.",
    )
    for other in members[1:]:
        pair = f"{first.source} and {other.source}"
        splits = [_artifact(p).inputs.get("split", "(none)") for p in (first, other)]
        if splits[0] != splits[1]:
            raise ArtifactError(
                f"{pair} were made on different splits: {splits[0][:12]} and {splits[1][:12]}",
                "One may have trained on what the other is judged on. Train both on the same split.",
            )
        if first.table["id"].tolist() != other.table["id"].tolist():
            differing = sorted(set(first.table["id"]) ^ set(other.table["id"]))
            raise ArtifactError(
                f"{pair} predicted different images ({len(first.table)} and {len(other.table)}): "
                f"{name_items(differing) if differing else 'the same ids in another order'}",
                "Train both on the same split.",
            )
        for column in ("label", "lesion_id"):
            differ = first.table["id"][(first.table[column] != other.table[column]).to_numpy()]
            if len(differ):
                raise ArtifactError(f"{pair} disagree on the {column} of {name_items(differ)}")


def _test(
    workspace: Workspace,
    names: Sequence[str],
    views: Sequence[str],
    settings: EnsembleSettings,
    reporter: Reporter,
) -> list[Predictions]:
    """Predictions of the test images by all members; empty, and said so, where one of them lacks them."""
    lacking = (
        []
        if settings.tables
        else [name for name in names if not member_predictions.has_test(workspace, name)]
    )
    if settings.tables or lacking:
        if lacking and len(lacking) < len(names):
            reporter.note(f"no merged predictions of the test images: {', '.join(lacking)} lack them")
        return []
    predictions = [with_views(member_predictions.read_test(workspace, name), views) for name in names]
    require_same(predictions)
    return predictions


def _informed(
    workspace: Workspace,
    names: Sequence[str],
    views: Sequence[str],
    settings: EnsembleSettings,
    *,
    has_test: bool,
) -> dict[str, list[Predictions]]:
    """The same parts as members predict them with patient metadata; empty where no member takes any."""
    parts: dict[str, list[Predictions]] = {with_metadata("val"): [], with_metadata("test"): []}
    if settings.tables or not any(member_predictions.takes_metadata(workspace, name) for name in names):
        return parts
    for part, read in (("val", member_predictions.read_validation), ("test", member_predictions.read_test)):
        if part == "test" and not has_test:
            continue
        predictions = [with_views(read(workspace, name, metadata=True), views) for name in names]
        require_same(predictions)
        parts[with_metadata(part)] = predictions
    return parts


def _merge(members: Sequence[Predictions], ensemble: Ensemble) -> Predictions:
    first = members[0]
    stack = np.stack([p.view_probabilities for p in members])
    views = ensemble.merge(stack.reshape(len(members), -1, stack.shape[-1])).reshape(stack.shape[1:])
    groups = np.moveaxis(stack, 0, 1) if len(members) > 1 else None
    source = f"ensemble ({ensemble.method})"
    return Predictions(
        first.table, views, first.views, source, first.part, classes=first.classes, group_probabilities=groups
    )


def _artifact(predictions: Predictions) -> Artifact:
    assert predictions.artifact is not None
    return predictions.artifact


def _checkpoint(predictions: Predictions) -> str | None:
    return _artifact(predictions).inputs.get("checkpoint")


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
