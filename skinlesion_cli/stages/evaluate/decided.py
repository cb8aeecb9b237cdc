"""Predictions of one source with the decision on them: of a calibration, of a table, or the argmax."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from skinlesion_cli.artifacts import external_predictions, external_tables, external_truth
from skinlesion_cli.artifacts.bundle import Bundle, bundled_model
from skinlesion_cli.artifacts.calibration import Calibration
from skinlesion_cli.artifacts.class_list import class_list_of
from skinlesion_cli.artifacts.ensemble import Ensemble
from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.external_predictions import ExternalPredictions
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.decisions.policies.registry import ARGMAX, CALIBRATED, DECISIONS
from skinlesion_cli.decisions.settings import Target
from skinlesion_cli.decisions.statistics import metrics
from skinlesion_cli.errors import ArtifactError, UsageError, name_items
from skinlesion_cli.inference.prediction import is_in_training
from skinlesion_cli.stages.evaluate.judged import Judged
from skinlesion_cli.stages.evaluate.mapping import onto
from skinlesion_cli.stages.evaluate.settings import ENSEMBLE, EvaluateSettings
from skinlesion_cli.taxonomy import SHIPPED, shipped
from skinlesion_cli.taxonomy.shipped import class_list


def judge(workspace: Workspace, settings: EvaluateSettings, source: str, decision: str | None) -> Judged:
    """Read one source and decide on it, by the classes that are asked for."""
    judged = _judge(workspace, settings, source, decision)
    return by_asked_classes(judged, settings)


def by_asked_classes(judged: Judged, settings: EvaluateSettings) -> Judged:
    """The same, mapped onto the list of `settings.classes`."""
    asked = None if settings.classes is None else class_list(settings.classes)
    return judged if asked is None else onto(judged, asked)


def _judge(workspace: Workspace, settings: EvaluateSettings, source: str, decision: str | None) -> Judged:
    if decision not in (None, *DECISIONS):
        raise UsageError(f"no decision named {decision!r}", "Known: " + ", ".join(DECISIONS))
    if source.endswith(".csv"):
        return _judge_table(workspace, settings, Path(source), decision)
    if source != ENSEMBLE:
        if decision == CALIBRATED:
            raise UsageError("a calibration decides on the ensemble only", "Omit --decision or --source.")
        if source not in workspace.trained():
            raise UsageError(
                f"no trained network named {source!r}",
                "Trained: " + (", ".join(workspace.trained()) or "none"),
            )
        path = workspace.predictions(source, settings.part)
        return plain(_loaded(workspace, path, source, settings.part), ())
    predictions = ensemble_predictions(workspace, settings.part)
    if decision == ARGMAX:
        return plain(predictions, ())
    if decision is None and not workspace.calibration.exists():
        return plain(predictions, ("there is no calibration in the workspace: the argmax decides",))
    return calibrated(workspace, predictions)


def ensemble_predictions(workspace: Workspace, part: str) -> Predictions:
    """The merged predictions of one part.

    Raises
    ------
    ArtifactError : there is no ensemble, or it has none of this part: names what to do about it.
    """
    workspace.require_ensemble()
    return _loaded(workspace, workspace.ensemble_predictions(part), "the ensemble", part)


def _loaded(workspace: Workspace, path: Path, source: str, part: str) -> Predictions:
    if not path.exists():
        raise ArtifactError(f"{source} has no predictions of {part} images", _hint(workspace, part))
    return Predictions.load(path)


def _hint(workspace: Workspace, part: str) -> str:
    """What to do where a part has no predictions: the split has no such part, or a network lacks them."""
    if not workspace.trained():
        return "Evaluate a table of predictions instead: --source TABLE.csv --truth LABELS.csv."
    if workspace.manifest.exists() and workspace.split.exists():
        split = Split.load(workspace.split, Manifest.load(workspace.manifest))
        if not split.ids(part) and not (part == "val" and split.n_folds):
            return (
                f"The split of this dataset has no {part} images. Evaluate a table of predictions on other "
                "images (--source TABLE.csv --truth LABELS.csv), or import the dataset with --split grouped "
                "and train again."
            )
    return (
        "Run the `skinlesion train` of each network again, which predicts what is missing, then "
        "`skinlesion ensemble`."
    )


def calibrated(workspace: Workspace, predictions: Predictions, file: Path | None = None) -> Judged:
    ensemble, calibration = (
        Ensemble.load(workspace.ensemble),
        Calibration.load(file or workspace.calibration),
    )
    assert ensemble.artifact is not None
    assert calibration.artifact is not None
    assert predictions.artifact is not None
    calibration.artifact.require_input("ensemble", ensemble.artifact)
    predictions.artifact.require_input("ensemble", ensemble.artifact)
    calibration.require_views(predictions.views)
    if calibration.artifact.inputs.get("predictions") == predictions.artifact.sha256:
        raise UsageError(
            "the calibration was fitted on these images: figures on them would be too optimistic",
            "Use --part test or --decision argmax; `skinlesion calibrate` prints cross-fitted figures.",
        )
    outcome = calibration.decide(calibration.averaged(predictions))
    return Judged(
        predictions,
        outcome.probabilities,
        outcome.decisions.decided,
        f"calibrated ({calibration.policy})",
        tuple(Target(**target) for target in calibration.targets),
        _guaranteed(calibration),
        outcome.triage,
        {"predictions": predictions.artifact, "calibration": calibration.artifact},
        (),
        outcome.alarms,
        calibration.level_guarantees,
    )


def _guaranteed(calibration: Calibration) -> tuple[Target, ...]:
    return tuple(
        Target(guarantee["class_name"], guarantee["sensitivity"], guarantee["specificity"])
        for guarantee in calibration.guarantees
        if guarantee["sensitivity"]
    )


def plain(predictions: Predictions, notes: tuple[str, ...]) -> Judged:
    assert predictions.artifact is not None
    values = predictions.probabilities
    inputs: dict[str, Artifact | str] = {"predictions": predictions.artifact}
    return Judged(predictions, values, metrics.scored_argmax(values), ARGMAX, (), (), None, inputs, notes)


def _judge_table(
    workspace: Workspace, settings: EvaluateSettings, path: Path, decision: str | None
) -> Judged:
    if decision == CALIBRATED:
        raise UsageError("a calibration decides on the ensemble only", "Omit --decision or --source.")
    of_labels = class_list_of(workspace) if settings.classes is None else class_list(settings.classes)
    # Results of a finer model than the one that the labels are for are told by their columns.
    candidates = (of_labels, class_list_of(workspace), *map(shipped, SHIPPED))
    classes = external_tables.list_of_table(path, candidates)
    truth = external_truth.find_truth(settings.truth, workspace.manifest, of_labels)
    table = external_predictions.read_predictions(
        path, truth, settings.part, classes=classes, label_classes=of_labels
    )
    notes = table.notes
    if not table.lesions_known:
        notes += ("no lesion ids: every image counts as a lesion of its own",)
    notes += _about_training(table)
    judged = plain(table.predictions, notes)
    if table.decided is None or decision == ARGMAX:
        return onto(judged, table.label_classes)
    judged = replace(judged, decided=table.decided, levels=table.levels, how="decision column")
    calibration = _calibration_of(table.model_sha256, workspace)
    if calibration is None:
        return onto(judged, table.label_classes)
    guaranteed, targets = _guaranteed(calibration), tuple(Target(**target) for target in calibration.targets)
    if calibration.rule.alarms and table.alarms is None:
        # Without its alarms a table cannot show whether what is guaranteed of them holds.
        guaranteed, targets = (), ()
    judged = replace(
        judged,
        targets=targets,
        guaranteed=guaranteed,
        alarms=_alarms(table.alarms, tuple(calibration.rule.alarms)),
        level_guarantees=() if table.levels is None else calibration.level_guarantees,
    )
    return onto(judged, table.label_classes)


def _about_training(table: ExternalPredictions) -> tuple[str, ...]:
    if table.image_notes is None:
        return ()
    ids = table.predictions.table["id"]
    seen = [identity for identity, cell in zip(ids, table.image_notes, strict=True) if is_in_training(cell)]
    if not seen:
        return ()
    return (
        f"{len(seen):,} of {len(ids):,} images are in the training data of the model that predicted them, so "
        f"that the figures are too optimistic: {name_items(seen)}",
    )


def _alarms(cells: np.ndarray | None, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The column `alarm`, such as `MEL|malignant`, as bool (n_images,) by name; empty without the column."""
    if cells is None:
        return {}
    fired = [set(cell.split("|")) for cell in cells]
    return {name: np.array([name in each for each in fired], dtype=bool) for name in names}


def _calibration_of(model_sha256: str, workspace: Workspace) -> Calibration | None:
    """The calibration of the model that a table names: the workspace's or the bundled one;
    None for any other.
    """
    if not model_sha256:
        return None
    for folder in (workspace, bundled_model()):
        try:
            bundle = Bundle.load(folder)
        except ArtifactError:
            continue
        if bundle.sha256 == model_sha256:
            return bundle.calibration
    return None
