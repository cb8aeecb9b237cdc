"""What is in a workspace: stages done, their figures, and what to run next."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from skinlesion_cli.artifacts.base import StoredArtifact
from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.artifacts.calibration import Calibration
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.ensemble import Ensemble
from skinlesion_cli.artifacts.evaluation import Evaluation
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.next_command import after_calibration
from skinlesion_cli.artifacts.quality_gate import StoredQualityGate
from skinlesion_cli.artifacts.split import PARTS, Split
from skinlesion_cli.artifacts.training_state import TrainingState
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.errors import ArtifactError, ExitCode
from skinlesion_cli.progress import Reporter
from skinlesion_cli.result import StageResult, Table, counted
from skinlesion_cli.stages.info.settings import InfoSettings

_Stored = TypeVar("_Stored", bound=StoredArtifact)
_DONE, _MISSING, _DAMAGED, _OUTDATED = "done", "not yet", "damaged", "out of date"


@dataclass
class _Status:
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    next_command: str | None = None

    def add(self, stage: str, state: str, detail: str = "") -> None:
        self.rows.append((stage, state, detail))

    def suggest(self, command: str) -> None:
        self.next_command = self.next_command or command


def run(settings: InfoSettings, reporter: Reporter) -> StageResult:
    """Look at every stage's artifacts; a damaged one is named and makes the exit code 4."""
    workspace, status = Workspace(settings.workspace), _Status()
    split = _dataset(workspace, status)
    _networks(workspace, split, status)
    _ensemble(workspace, status)
    calibration = _calibration(workspace, status)
    _gate(workspace, status)
    evaluated = _evaluation(workspace, calibration, status)
    if not status.problems and status.next_command is None:
        try:
            bundle = Bundle.load(workspace)
            status.figures["model_sha256"] = bundle.sha256
            status.suggest(after_calibration(workspace, evaluated=evaluated))
        except ArtifactError as error:
            status.problems.append(error.message)
            status.suggest("skinlesion ensemble && skinlesion calibrate")
    return StageResult(
        command="info",
        headline=[f"workspace {settings.workspace}", *_bundled_instead(workspace)],
        figures=status.figures,
        tables=[Table("Stages", ("stage", "state", "details"), status.rows)],
        warnings=[*status.problems, *status.warnings],
        next_command=status.next_command,
        exit_code=ExitCode.ARTIFACT if status.problems else ExitCode.OK,
    )


def _bundled_instead(workspace: Workspace) -> list[str]:
    return [] if workspace.begun() else ["no model yet: `skinlesion predict` uses the bundled one"]


def _dataset(workspace: Workspace, status: _Status) -> Split | None:
    """Report on the dataset; returns its split unless it is missing or damaged."""
    if not workspace.manifest.exists():
        status.add("download", _MISSING)
        status.suggest("skinlesion download --from DIR")
        return None
    try:
        manifest = Manifest.load(workspace.manifest)
        split = Split.load(workspace.split, manifest)
    except ArtifactError as error:
        status.add("download", _DAMAGED, error.message)
        status.problems.append(error.message)
        status.suggest("skinlesion download --from DIR")
        return None
    counts = {part: len(split.ids(part)) for part in PARTS}
    sources = Counter(manifest.table["source"])
    status.figures["dataset"] = {
        "images": len(manifest.table),
        "lesions": manifest.n_lesions,
        "sources": dict(sorted(sources.items())),
        "class_counts": manifest.class_counts,
        "split": split.strategy,
        "parts": counts,
    }
    parts = " / ".join(f"{part} {count:,}" for part, count in counts.items() if count)
    folds = f", {split.n_folds} folds" if split.n_folds else ""
    detail = (
        f"{len(manifest.table):,} images of {manifest.n_lesions:,} lesions; {split.strategy}: {parts}{folds}"
    )
    if len(sources) > 1:
        detail += "; " + ", ".join(f"{count:,} of {source}" for source, count in sorted(sources.items()))
    status.add("download", _DONE, detail)
    return split


def _networks(workspace: Workspace, split: Split | None, status: _Status) -> None:
    trained = workspace.trained()
    outdated_archs: list[str] = []
    folds = f" --folds {split.n_folds}" if split is not None and split.n_folds else ""
    status.figures["networks"] = {}
    for state in sorted(workspace.models.glob("*/state/state.json")):
        name = state.parent.parent.name
        try:
            status.add(
                f"train {name}",
                "under way",
                f"{counted(TrainingState.load(state).epochs_finished, 'epoch')} finished",
            )
        except ArtifactError as error:
            status.add(f"train {name}", _DAMAGED, error.message)
            status.problems.append(error.message)
        if name not in trained:
            status.suggest(f"skinlesion train --arch {name.split('-fold')[0]}{folds}")
    for name in trained:
        try:
            checkpoint = Checkpoint.load(workspace.checkpoint(name))
        except ArtifactError as error:
            status.add(f"train {name}", _DAMAGED, error.message)
            status.problems.append(error.message)
            status.suggest(f"skinlesion train --arch {name.split('-fold')[0]}{folds} --fresh")
            continue
        outdated = _is_outdated(checkpoint, split)
        status.figures["networks"][name] = {**checkpoint.figures, "outdated": outdated}
        detail = f"{checkpoint.recipe.name} recipe"
        if checkpoint.validation_bacc is not None:
            support = checkpoint.figures.get("validation_images", "unknown")
            detail += f", validation BACC {checkpoint.validation_bacc:.4f} on {support} images"
        if outdated:
            detail += "; the dataset or its split has changed since"
            outdated_archs.append(checkpoint.arch)
        status.add(f"train {name}", _OUTDATED if outdated else _DONE, detail)
    if outdated_archs:
        status.warnings.append(
            f"{len(outdated_archs)} of {len(trained)} networks were trained before images were added or the "
            "split was changed; predictions still work, and training again uses the new images"
        )
        status.suggest(f"skinlesion train --arch {outdated_archs[0]}{folds} --fresh")
    if not trained:
        status.add("train", _MISSING)
        status.suggest(f"skinlesion train --arch efficientnet_lite0{folds}")


def _is_outdated(checkpoint: Checkpoint, split: Split | None) -> bool:
    """Whether the network was trained with another split than that
    of the workspace (appending changes it too).
    """
    if split is None or split.artifact is None or checkpoint.artifact is None:
        return False
    return checkpoint.artifact.inputs.get("split") not in (None, split.artifact.sha256)


def _loaded(kind: type[_Stored], path: Path, command: str, status: _Status) -> _Stored | None:
    """The artifact that `command` writes; None if it is missing or damaged, which is reported."""
    try:
        if path.exists():
            return kind.load(path)
        status.add(command, _MISSING)
    except ArtifactError as error:
        status.add(command, _DAMAGED, error.message)
        status.problems.append(error.message)
    status.suggest(f"skinlesion {command}")
    return None


def _ensemble(workspace: Workspace, status: _Status) -> None:
    ensemble = _loaded(Ensemble, workspace.ensemble, "ensemble", status)
    if ensemble is None:
        return
    weights = {member.name: member.weight for member in ensemble.members}
    status.figures["ensemble"] = {"method": ensemble.method, "weights": weights, **ensemble.figures}
    members = ", ".join(f"{name} {weight:.3f}" for name, weight in weights.items())
    status.add("ensemble", _DONE, f"{ensemble.method}: {members}")


def _calibration(workspace: Workspace, status: _Status) -> Calibration | None:
    calibration = _loaded(Calibration, workspace.calibration, "calibrate", status)
    if calibration is None:
        return None
    thresholds = dict(calibration.rule.fires_above)
    status.figures["calibration"] = {"policy": calibration.policy, "thresholds": thresholds}
    shown = ", ".join(f"{name} > {theta:.3f}" for name, theta in thresholds.items()) or "no thresholds"
    second = "; another for images with patient metadata" if workspace.metadata_calibration.exists() else ""
    status.add("calibrate", _DONE, f"{calibration.policy}: {shown}; views: {calibration.tta_mode}{second}")
    return calibration


def _gate(workspace: Workspace, status: _Status) -> None:
    try:
        if not workspace.gate.exists():
            status.add("gate", _MISSING, "optional; without it no image is flagged")
            return
        images = StoredQualityGate.load(workspace.gate).figures.get("fitted_on_images")
        status.add("gate", _DONE, "" if images is None else f"fitted on {images:,} images")
    except ArtifactError as error:
        status.add("gate", _DAMAGED, error.message)
        status.problems.append(error.message)
        status.suggest("skinlesion gate")


def _evaluation(workspace: Workspace, calibration: Calibration | None, status: _Status) -> bool:
    """Whether the model was judged on the test part as it is now."""
    path = workspace.root / "evaluation" / "ensemble-test" / "evaluation.json"
    try:
        if not path.exists():
            status.add("evaluate", _MISSING)
            return False
        evaluation = Evaluation.load(path)
    except ArtifactError as error:
        # The figures are for people: nothing is made from them.
        status.add("evaluate", _DAMAGED, error.message)
        return False
    assert evaluation.artifact is not None
    stated = evaluation.artifact.inputs.get("calibration")
    present = calibration.artifact if calibration is not None else None
    current = present is not None and stated == present.sha256
    bacc = evaluation.body["figures"]["bacc"]["value"]
    detail = f"test part: BACC {'undefined' if bacc is None else format(bacc, '.3f')}"
    status.add("evaluate", _DONE if current else _OUTDATED, detail)
    return current
