"""Combine trained networks: weights, and the merged predictions of the parts that all have predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skinlesion_cli.artifacts import ensemble as ensembles
from skinlesion_cli.artifacts import predictions as stored
from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.files import exclusive
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.decisions import ensemble as merging
from skinlesion_cli.decisions import metrics
from skinlesion_cli.errors import ArtifactError, UsageError, name_items
from skinlesion_cli.inference import tta
from skinlesion_cli.progress import Reporter
from skinlesion_cli.stages.result import StageResult, Table

METHODS = ("bacc", "equal")
HINT = "Train it first: `skinlesion train --arch NAME`."


@dataclass(frozen=True)
class EnsembleConfig:
    """`members` are names of trained networks; empty: all of the workspace. `tta_mode`: views to average."""

    workspace: Path
    members: tuple[str, ...] = ()
    method: str = "bacc"
    tta_mode: str = "d4"


def run(config: EnsembleConfig, reporter: Reporter) -> StageResult:
    """Write `ensemble/`: the weights, and merged predictions of validation (and test, where all have it)."""
    if config.method not in METHODS:
        raise UsageError(f"no way to combine named {config.method!r}", "Known: " + ", ".join(METHODS))
    if config.tta_mode not in tta.MODES:
        raise UsageError(f"no TTA mode named {config.tta_mode!r}", "Known: " + ", ".join(tta.MODES))
    workspace = Workspace(config.workspace)
    names = _members(workspace, config.members)
    views = tta.MODES[config.tta_mode]
    validation = [with_views(_read(workspace, name, "val"), views) for name in names]
    require_same(validation)
    bacc = [metrics.balanced_accuracy(p.labels, p.probabilities.argmax(axis=1)) for p in validation]
    weights = merging.equal_weights(len(names)) if config.method == "equal" else merging.bacc_weights(bacc)
    with exclusive(workspace.ensemble.parent, "ensemble"):
        merged = _merge(validation, weights, config.method)
        ensemble = ensembles.Ensemble(
            members=tuple(
                ensembles.Member(name, _checkpoint(p), float(weight), _defined(value))
                for name, p, weight, value in zip(names, validation, weights, bacc, strict=True)
            ),
            method=config.method,
            views=views,
            figures=_figures(merged),
        )
        sources = {f"predictions:{name}": _artifact(p) for name, p in zip(names, validation, strict=True)}
        written = ensembles.write(workspace.ensemble, ensemble, inputs=sources)
        paths = [workspace.ensemble]
        for part in ("val", "test"):
            parts = _part(workspace, names, part, views, validation, reporter)
            if parts:
                path = workspace.ensemble_predictions(part)
                inputs: dict[str, Artifact | str] = {"ensemble": written}
                inputs["split"] = _artifact(parts[0]).inputs["split"]
                stored.write(path, _merge(parts, weights, config.method), inputs=inputs)
                paths.append(path)
    return _result(ensemble, paths)


def _members(workspace: Workspace, wanted: Sequence[str]) -> list[str]:
    trained = workspace.trained()
    unknown = [name for name in wanted if name not in trained]
    if unknown:
        raise UsageError(
            f"not trained in this workspace: {name_items(unknown)}",
            "Trained: " + (", ".join(trained) or "none") + ". " + HINT,
        )
    names = list(dict.fromkeys(wanted)) or trained
    if not names:
        raise ArtifactError("no network is trained in this workspace", HINT)
    return names


def _read(workspace: Workspace, name: str, part: str) -> Predictions:
    return stored.read(
        workspace.predictions(name, part),
        hint=f"Run `skinlesion train --arch {name}` again: it predicts what is missing.",
    )


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
    return Predictions(
        predictions.table,
        predictions.view_probabilities[:, at],
        tuple(views),
        predictions.source,
        predictions.part,
        predictions.artifact,
    )


def require_same(members: Sequence[Predictions]) -> None:
    """Refuse members that were made on different splits or say something of different images.

    Raises
    ------
    ArtifactError : naming both members and both values.
    """
    first = members[0]
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


def _part(
    workspace: Workspace,
    names: Sequence[str],
    part: str,
    views: Sequence[str],
    validation: list[Predictions],
    reporter: Reporter,
) -> list[Predictions]:
    """Predictions of one part by all members; empty, and said so, where one of them lacks it."""
    if part == "val":
        return validation
    lacking = [name for name in names if not workspace.predictions(name, part).exists()]
    if lacking:
        workspace.ensemble_predictions(part).unlink(missing_ok=True)
        if len(lacking) < len(names):
            reporter.note(f"no merged predictions of the {part} images: {', '.join(lacking)} lack them")
        return []
    found = [with_views(_read(workspace, name, part), views) for name in names]
    require_same(found)
    return found


def _merge(members: Sequence[Predictions], weights: np.ndarray, method: str) -> Predictions:
    first = members[0]
    stack = np.stack([p.view_probabilities for p in members])
    n_members, n_images, n_views, n_classes = stack.shape
    merged = merging.combine(stack.reshape(n_members, n_images * n_views, n_classes), weights)
    return Predictions(
        first.table,
        merged.reshape(n_images, n_views, n_classes),
        first.views,
        source=f"ensemble ({method})",
        part=first.part,
    )


def _artifact(predictions: Predictions) -> Artifact:
    assert predictions.artifact is not None
    return predictions.artifact


def _checkpoint(predictions: Predictions) -> str | None:
    return _artifact(predictions).inputs.get("checkpoint")


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _figures(merged: Predictions) -> dict[str, object]:
    predicted = merged.probabilities.argmax(axis=1)
    return {
        "validation_bacc": _defined(metrics.balanced_accuracy(merged.labels, predicted)),
        "images": len(merged.table),
        "lesions": int(merged.table["lesion_id"].nunique()),
        "classes_without_images": list(metrics.missing_classes(merged.labels)),
    }


def _result(ensemble: ensembles.Ensemble, paths: Sequence[Path]) -> StageResult:
    def shown(value: object) -> str:
        return "undefined" if value is None else f"{value:.4f}"

    rows = [[m.name, f"{m.weight:.4f}", shown(m.validation_bacc)] for m in ensemble.members]
    rows.append(["ensemble", "", shown(ensemble.figures["validation_bacc"])])
    missing = ensemble.figures["classes_without_images"]
    return StageResult(
        command="ensemble",
        headline=[
            f"{len(ensemble.members)} members, weights by {ensemble.method}, {len(ensemble.views)} views, "
            f"{ensemble.figures['images']:,} validation images of {ensemble.figures['lesions']:,} lesions"
        ],
        figures={
            "method": ensemble.method,
            "views": list(ensemble.views),
            "members": [
                {"name": m.name, "weight": m.weight, "validation_bacc": m.validation_bacc}
                for m in ensemble.members
            ],
            **ensemble.figures,
        },
        tables=[Table("Members", ["member", "weight", "validation BACC"], rows)],
        artifacts=[str(path) for path in paths],
        warnings=[f"no validation images of {', '.join(missing)}: BACC is the mean of the others"]
        if missing
        else [],
        next_command="skinlesion calibrate",
    )
