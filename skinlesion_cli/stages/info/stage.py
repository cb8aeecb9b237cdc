"""What is in a workspace: stages done, their figures, and what to run next."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from skinlesion_cli.artifacts import bundle as bundles
from skinlesion_cli.artifacts.calibration import Calibration
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.ensemble import Ensemble
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.split import PARTS, Split
from skinlesion_cli.artifacts.training_state import TrainingState
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.errors import ArtifactError, ExitCode
from skinlesion_cli.progress import Reporter
from skinlesion_cli.stages.info.settings import InfoSettings
from skinlesion_cli.stages.result import StageResult, Table

_DONE, _MISSING, _DAMAGED = "done", "not yet", "damaged"


@dataclass
class _Status:
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    next_command: str | None = None

    def add(self, stage: str, state: str, detail: str = "") -> None:
        self.rows.append((stage, state, detail))

    def suggest(self, command: str) -> None:
        self.next_command = self.next_command or command


def run(settings: InfoSettings, reporter: Reporter) -> StageResult:
    """Look at every stage's artifacts; a damaged one is told and makes the exit code 4."""
    workspace, status = Workspace(settings.workspace), _Status()
    _dataset(workspace, status)
    _networks(workspace, status)
    _ensemble(workspace, status)
    _calibration(workspace, status)
    if not status.problems and status.next_command is None:
        try:
            bundle = bundles.from_workspace(workspace)
            status.figures["model_sha256"] = bundle.sha256
            status.suggest("skinlesion predict ./images --cam")
        except ArtifactError as error:
            status.problems.append(error.message)
            status.suggest("skinlesion ensemble && skinlesion calibrate")
    return StageResult(
        command="info",
        headline=[f"workspace {settings.workspace}"],
        figures=status.figures,
        tables=[Table("stages", ("stage", "state", "what"), status.rows)],
        warnings=status.problems,
        next_command=status.next_command,
        exit_code=ExitCode.ARTIFACT if status.problems else ExitCode.OK,
    )


def _dataset(workspace: Workspace, status: _Status) -> None:
    if not workspace.manifest.exists():
        status.add("download", _MISSING)
        status.suggest("skinlesion download --from DIR")
        return
    try:
        manifest = Manifest.load(workspace.manifest)
        split = Split.load(workspace.split, manifest)
    except ArtifactError as error:
        status.add("download", _DAMAGED, error.message)
        status.problems.append(error.message)
        status.suggest("skinlesion download --from DIR")
        return
    counts = {part: len(split.ids(part)) for part in PARTS}
    status.figures["dataset"] = {
        "images": len(manifest.table),
        "lesions": manifest.n_lesions,
        "class_counts": manifest.class_counts,
        "split": split.strategy,
        "parts": counts,
    }
    parts = " / ".join(f"{part} {count}" for part, count in counts.items() if count)
    detail = f"{len(manifest.table)} images, {manifest.n_lesions} lesions; {split.strategy}: {parts}"
    status.add("download", _DONE, detail)


def _networks(workspace: Workspace, status: _Status) -> None:
    trained = workspace.trained()
    status.figures["networks"] = {}
    for state in sorted(workspace.models.glob("*/state/state.json")):
        name = state.parent.parent.name
        epoch = TrainingState.load(state).epochs_finished
        status.add(f"train {name}", "under way", f"{epoch} epochs finished")
        if name not in trained:
            status.suggest(f"skinlesion train --arch {name}")
    for name in trained:
        try:
            checkpoint = Checkpoint.load(workspace.checkpoint(name))
        except ArtifactError as error:
            status.add(f"train {name}", _DAMAGED, error.message)
            status.problems.append(error.message)
            status.suggest(f"skinlesion train --arch {name} --fresh")
            continue
        bacc = checkpoint.figures["val_bacc"]
        support = checkpoint.figures["validation_images"]
        status.figures["networks"][name] = dict(checkpoint.figures)
        status.add(
            f"train {name}",
            _DONE,
            f"{checkpoint.recipe.name} recipe, validation BACC {bacc:.4f} on {support} images",
        )
    if not trained:
        status.add("train", _MISSING)
        status.suggest("skinlesion train --arch densenet121")


def _ensemble(workspace: Workspace, status: _Status) -> None:
    if not workspace.ensemble.exists():
        status.add("ensemble", _MISSING)
        status.suggest("skinlesion ensemble")
        return
    try:
        ensemble = Ensemble.load(workspace.ensemble)
    except ArtifactError as error:
        status.add("ensemble", _DAMAGED, error.message)
        status.problems.append(error.message)
        status.suggest("skinlesion ensemble")
        return
    weights = {member.name: member.weight for member in ensemble.members}
    status.figures["ensemble"] = {"method": ensemble.method, "weights": weights, **ensemble.figures}
    members = ", ".join(f"{name} {weight:.3f}" for name, weight in weights.items())
    status.add("ensemble", _DONE, f"{ensemble.method}: {members}")


def _calibration(workspace: Workspace, status: _Status) -> None:
    if not workspace.calibration.exists():
        status.add("calibrate", _MISSING)
        status.suggest("skinlesion calibrate")
        return
    try:
        calibration = Calibration.load(workspace.calibration)
    except ArtifactError as error:
        status.add("calibrate", _DAMAGED, error.message)
        status.problems.append(error.message)
        status.suggest("skinlesion calibrate")
        return
    thresholds = dict(calibration.rule.thresholds)
    status.figures["calibration"] = {"policy": calibration.policy, "thresholds": thresholds}
    shown = ", ".join(f"{name} > {theta:.3f}" for name, theta in thresholds.items()) or "no thresholds"
    status.add("calibrate", _DONE, f"{calibration.policy}: {shown}; views: {calibration.tta_mode}")
