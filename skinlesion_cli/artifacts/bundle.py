"""A bundle: everything that prediction needs, checked to belong together.

Members, ensemble and calibration are separate artifacts; a bundle is the proof that each was made from the
others, and one hash that names the whole.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from skinlesion_cli.artifacts.calibration import Calibration
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.ensemble import Ensemble, Member
from skinlesion_cli.artifacts.envelope import payload_files
from skinlesion_cli.artifacts.files import sha256_bytes
from skinlesion_cli.artifacts.quality_gate import StoredQualityGate
from skinlesion_cli.artifacts.workspace import DEFAULT_FOLDER, Workspace
from skinlesion_cli.config.schema import canonical_json
from skinlesion_cli.decisions.quality_gate import QualityGate
from skinlesion_cli.errors import ArtifactError

BUILTIN = "builtin"
# Of models that are known by name; every other one is a folder.
MODEL_NAMES = (BUILTIN,)


@dataclass(frozen=True)
class Bundle:
    """`members` are in the order of `ensemble.members`. `model_id` is for people, `sha256` for machines.

    `gate` judges the quality of images; None where none was fitted. `is_builtin`: it came with the package.
    """

    members: tuple[Checkpoint, ...]
    ensemble: Ensemble
    calibration: Calibration
    model_id: str
    sha256: str
    gate: QualityGate | None = None
    is_bundled: bool = False


def bundled_model() -> Workspace:
    """The model that comes with the package, packed like any other.

    Raises
    ------
    ArtifactError : this copy of the package has none.
    """
    found = _package_folder()
    if not found.ensemble.exists():
        raise ArtifactError("this copy of skinlesion has no built-in model", "Install a released version.")
    return found


def _package_folder() -> Workspace:
    return Workspace(Path(str(resources.files("skinlesion_cli.bundled"))))


def locate(workspace: Workspace, model: str | None = None) -> Workspace:
    """Where the model to use lies: the one named, else the workspace's own, else the built-in one.

    A workspace in which a model was begun is never passed over: where it is not finished, reading it says what
    to run next. Neither is one that somebody named and that is not there: a slip of the pen must not decide which
    model judges a patient.

    Raises
    ------
    ArtifactError : the workspace was named and is not there, or there is no built-in model.
    """
    if model is not None:
        return resolve_model(model)
    if workspace.begun():
        return workspace
    if not workspace.root.is_dir() and workspace.root != Path(DEFAULT_FOLDER):
        raise ArtifactError(
            f"there is no workspace {workspace.root}",
            "Check its name, or ask for the built-in model: --model builtin.",
        )
    return bundled_model()


def architecture(model: str) -> str:
    """The one architecture of a model's networks, which a training can start from.

    Raises
    ------
    ArtifactError : its networks are of several architectures.
    """
    found = sorted({member.arch for member in from_workspace(resolve_model(model)).members})
    if len(found) > 1:
        raise ArtifactError(
            f"the networks of {model} are of {', '.join(found)}",
            "Start from one file: --weights FILE --arch ARCH.",
        )
    return found[0]


def resolve_model(model: str) -> Workspace:
    """The folder of `builtin`, or of a packed model or workspace."""
    return bundled_model() if model == BUILTIN else Workspace(Path(model))


def from_workspace(workspace: Workspace, *, with_gate: bool = True) -> Bundle:
    """The finished ensemble of a workspace; without its quality gate where `with_gate` is False.

    Raises
    ------
    ArtifactError : a stage is missing, or one was run again without those after it; says which to run.
    """
    if not workspace.trained() and not workspace.ensemble.exists():
        raise ArtifactError(
            f"there is no trained network in {workspace.root}",
            "Run `skinlesion download --from DIR`, then `skinlesion train --arch densenet121`; "
            "or predict with --model builtin.",
        )
    ensemble = Ensemble.load(workspace.ensemble)
    calibration = Calibration.load(workspace.calibration)
    if ensemble.artifact is None or calibration.artifact is None:
        raise ValueError("artifacts read from disk carry their envelope")
    calibration.artifact.require_input("ensemble", ensemble.artifact)
    members = tuple(_member(workspace, member) for member in ensemble.members)
    gate = StoredQualityGate.load(workspace.gate) if with_gate and workspace.gate.exists() else None
    parts = [member.artifact.sha256 for member in members if member.artifact]
    parts += [ensemble.artifact.sha256, calibration.artifact.sha256]
    parts += [gate.artifact.sha256] if gate is not None and gate.artifact is not None else []
    digest = sha256_bytes(canonical_json(parts))
    names = "+".join(member.name for member in ensemble.members)
    is_bundled = workspace == _package_folder()
    return Bundle(
        members,
        ensemble,
        calibration,
        model_id=f"{BUILTIN}:{names}" if is_bundled else names,
        sha256=digest,
        gate=gate.gate if gate is not None else None,
        is_bundled=is_bundled,
    )


def copy_model(
    source: Workspace, target: Workspace, bundle: Bundle, *, with_predictions: bool = False
) -> int:
    """Copy a finished model's files unchanged; returns their size in bytes.

    `with_predictions` copies its validation predictions too.
    """
    envelopes = [source.checkpoint(member.name) for member in bundle.members]
    envelopes += [source.ensemble, source.calibration]
    envelopes += [source.gate] if source.gate.exists() else []
    if with_predictions:
        envelopes.append(source.ensemble_predictions("val"))
    total_bytes = 0
    for envelope in envelopes:
        for path in (*payload_files(envelope), envelope):
            copy = target.root / path.relative_to(source.root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            total_bytes += copy.stat().st_size
    return total_bytes


def _member(workspace: Workspace, member: Member) -> Checkpoint:
    if member.checkpoint_sha256 is None:
        raise ArtifactError(
            f"member {member.name} of the ensemble is a table of predictions from elsewhere, not a network",
            "Such an ensemble can be calibrated and evaluated, but it cannot predict new images.",
        )
    found = Checkpoint.load(workspace.checkpoint(member.name))
    digest = found.artifact.sha256 if found.artifact else ""
    if digest != member.checkpoint_sha256:
        raise ArtifactError(
            f"models/{member.name} is {digest[:12]}, but the ensemble was built from {member.checkpoint_sha256[:12]}",
            "It was trained again since: run `skinlesion ensemble` and `skinlesion calibrate`.",
        )
    return found
