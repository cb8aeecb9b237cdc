"""A bundle: everything that prediction needs, checked to belong together.

Members, ensemble and calibration are separate artifacts; a bundle is the check that each was made from the
others, and one hash of all of them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from skinlesion_cli.artifacts import exports, hub
from skinlesion_cli.artifacts.calibration import Calibration
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.class_list import require_same_classes
from skinlesion_cli.artifacts.ensemble import Ensemble, Member
from skinlesion_cli.artifacts.envelope import payload_files
from skinlesion_cli.artifacts.files import sha256_bytes
from skinlesion_cli.artifacts.quality_gate import StoredQualityGate
from skinlesion_cli.artifacts.training_images import StoredTrainingImages
from skinlesion_cli.artifacts.workspace import DEFAULT_FOLDER, Workspace
from skinlesion_cli.config.schema import canonical_json
from skinlesion_cli.decisions.fingerprints import FingerprintSet
from skinlesion_cli.decisions.quality_gate import QualityGate
from skinlesion_cli.errors import ArtifactError
from skinlesion_cli.taxonomy.class_list import ClassList

# Name of the bundled model at the command line. It starts every `model_id` of that model in stored tables.
BUNDLED_NAME = "builtin"
# Models that are known by name; every other one is a folder.
MODEL_NAMES = (BUNDLED_NAME,)


@dataclass(frozen=True)
class Bundle:
    """`members` are in the order of `ensemble.members`.

    `model_id` is the readable name, `sha256` the exact identity.

    `gate` judges the quality of images; None where none was fitted. `training_images` recognises the images
    that the model has seen in training; None where they were not listed. `is_bundled`: it came with the
    package.
    `metadata_calibration` decides on images of whose patients something is known; None where the networks
    take no patient metadata, or were not calibrated with it: they are then given none.
    """

    members: tuple[Checkpoint, ...]
    ensemble: Ensemble
    calibration: Calibration
    model_id: str
    sha256: str
    gate: QualityGate | None = None
    is_bundled: bool = False
    metadata_calibration: Calibration | None = None
    training_images: FingerprintSet | None = None

    @property
    def classes(self) -> ClassList:
        """What the model distinguishes."""
        return self.ensemble.classes

    @classmethod
    def load(cls, workspace: Workspace, *, with_gate: bool = True) -> Bundle:
        """The finished ensemble of a workspace or packed model; if not `with_gate`, without what
        `skinlesion gate` writes.

        Raises
        ------
        ArtifactError : a stage is missing, or one was run again without those after it; names the one to run.
        """
        _require_finished(workspace)
        ensemble = Ensemble.load(_inside(workspace, workspace.ensemble))
        calibration = Calibration.load(_inside(workspace, workspace.calibration))
        if ensemble.artifact is None or calibration.artifact is None:
            raise ValueError("artifacts read from disk carry their envelope")
        calibration.artifact.require_input("ensemble", ensemble.artifact)
        calibration.require_views(ensemble.views)
        informed = _metadata_calibration(workspace, ensemble)
        members = tuple(_member(workspace, member) for member in ensemble.members)
        require_same_classes(
            {
                "the ensemble": ensemble.classes,
                "the calibration": calibration.classes,
                **{f"models/{member.name}": member.classes for member in members},
            },
            "Train all networks of an ensemble on one dataset, then run `skinlesion ensemble` and "
            "`skinlesion calibrate`.",
        )
        gate = _quality_gate(workspace, members) if with_gate else None
        seen = _training_images(workspace, members) if with_gate else None
        parts = [member.artifact.sha256 for member in members if member.artifact]
        parts += [ensemble.artifact.sha256, calibration.artifact.sha256]
        parts += [informed.artifact.sha256] if informed is not None and informed.artifact is not None else []
        parts += [gate.artifact.sha256] if gate is not None and gate.artifact is not None else []
        parts += [seen.artifact.sha256] if seen is not None and seen.artifact is not None else []
        digest = sha256_bytes(canonical_json(parts))
        names = "+".join(member.name for member in ensemble.members)
        is_bundled = workspace == _package_folder()
        return cls(
            members,
            ensemble,
            calibration,
            model_id=f"{BUNDLED_NAME}:{names}" if is_bundled else names,
            sha256=digest,
            gate=gate.gate if gate is not None else None,
            is_bundled=is_bundled,
            metadata_calibration=informed,
            training_images=seen.fingerprints if seen is not None else None,
        )


def bundled_model() -> Workspace:
    """The model that comes with the package, packed like any other.

    Raises
    ------
    ArtifactError : this copy of the package has none.
    """
    folder = _package_folder()
    if not folder.ensemble.exists():
        raise ArtifactError("this copy of skinlesion has no bundled model", "Install a released version.")
    return folder


def _package_folder() -> Workspace:
    return Workspace(Path(str(resources.files("skinlesion_cli.bundled"))))


def locate_model(workspace: Workspace, model: str | None = None) -> Workspace:
    """Where the model to use lies: the one asked for, else the workspace's own, else the bundled one.

    A workspace in which a model was begun is never skipped: where it is not finished, loading it says what to
    run next. Neither is one that the user asked for and that is missing: a typing error must not decide which
    model judges a patient.

    Raises
    ------
    ArtifactError : the workspace that was asked for is missing, or there is no bundled model.
    """
    if model is not None:
        return resolve_model(model)
    if workspace.begun():
        return workspace
    if not workspace.root.is_dir() and workspace.root != Path(DEFAULT_FOLDER):
        raise ArtifactError(
            f"there is no workspace {workspace.root}",
            "Check its name, or ask for the bundled model: --model builtin.",
        )
    return bundled_model()


def locate_finished(workspace: Workspace, model: str | None = None) -> Workspace:
    """As `locate_model`; a model of the workspace that is not finished is refused with what it lacks and the
    way around it.

    Raises
    ------
    ArtifactError : as `locate_model`, or the workspace's model is not finished.
    """
    source = locate_model(workspace, model)
    if model is None and source == workspace:
        _require_finished(workspace, f" Or use the bundled model: --model {BUNDLED_NAME}")
    return source


def _require_finished(workspace: Workspace, otherwise: str = "") -> None:
    """Refuse a model of which a stage has not run yet. `otherwise` : what else the user can do."""
    # Before anything of it is looked for: a folder that leads elsewhere is an error of its own.
    for path in (workspace.ensemble, workspace.calibration):
        _inside(workspace, path)
    step = workspace.next_step()
    if step is None:
        return
    if not workspace.root.is_dir():
        step = "Check its name; `download`, `train`, `ensemble` and `calibrate` make a model."
    if not workspace.trained() and not workspace.ensemble.exists():
        raise ArtifactError(f"there is no trained network in {workspace.root}", step + otherwise)
    lacking = workspace.calibration if workspace.ensemble.exists() else workspace.ensemble
    raise ArtifactError(
        f"the model in {workspace.root} is not finished: {lacking.relative_to(workspace.root)} is not there",
        step + otherwise,
    )


def architecture_of(model: str) -> str:
    """The one architecture of a model's networks, which a training can start from.

    Raises
    ------
    ArtifactError : its networks are of several architectures.
    """
    architectures = sorted({member.arch for member in Bundle.load(resolve_model(model)).members})
    if len(architectures) > 1:
        raise ArtifactError(
            f"the networks of {model} are of {', '.join(architectures)}",
            "Start from one file: --weights FILE --arch ARCH.",
        )
    return architectures[0]


def resolve_model(model: str) -> Workspace:
    """The folder of `builtin`, of a model of the hub (`hf://owner/name@revision`, see `hub.fetched`), or of a
    packed model or workspace.
    """
    if hub.is_hub_name(model):
        return Workspace(hub.fetched(model))
    return bundled_model() if model == BUNDLED_NAME else Workspace(Path(model))


def copy_model(
    source: Workspace,
    target: Workspace,
    bundle: Bundle,
    *,
    with_predictions: bool = False,
    with_calibration: bool = True,
) -> int:
    """Copy a finished model's files unchanged; returns their size in bytes.

    `with_predictions` copies its validation predictions too. Without its calibrations (`with_calibration`)
    the copy is not finished, until it is calibrated.
    """
    # The table of cases says nothing of whose lesions they are; the ids of the lesions stay behind.
    optional = [source.metadata_calibration] if with_calibration else []
    optional += [source.gate, source.cases, source.training_images]
    # What a model can be loaded without comes first, what it cannot comes last: a copy that was cut off must
    # not pass for a model without a quality gate.
    envelopes = [path for path in optional if path.exists()]
    if with_predictions:
        envelopes.append(source.ensemble_predictions("val"))
    envelopes += [path for member in bundle.members if (path := exports.graph_beside(member)) is not None]
    envelopes += [source.checkpoint(member.name) for member in bundle.members]
    envelopes += [source.ensemble, source.calibration] if with_calibration else [source.ensemble]
    total_bytes = 0
    for envelope in envelopes:
        for path in (*payload_files(envelope), envelope):
            copy = target.root / path.relative_to(source.root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            total_bytes += copy.stat().st_size
    return total_bytes


def _metadata_calibration(workspace: Workspace, ensemble: Ensemble) -> Calibration | None:
    if not os.path.lexists(workspace.metadata_calibration):
        return None
    calibration = Calibration.load(_inside(workspace, workspace.metadata_calibration))
    if calibration.artifact is not None and ensemble.artifact is not None:
        calibration.artifact.require_input("ensemble", ensemble.artifact)
    calibration.require_views(ensemble.views)
    return calibration


def _quality_gate(workspace: Workspace, members: Sequence[Checkpoint]) -> StoredQualityGate | None:
    if not os.path.lexists(workspace.gate):
        return None
    stored = StoredQualityGate.load(_inside(workspace, workspace.gate))
    stored.require_network(members)
    return stored


def _training_images(workspace: Workspace, members: Sequence[Checkpoint]) -> StoredTrainingImages | None:
    if not os.path.lexists(workspace.training_images):
        return None
    stored = StoredTrainingImages.load(_inside(workspace, workspace.training_images))
    stored.require_networks(members)
    return stored


def _member(workspace: Workspace, member: Member) -> Checkpoint:
    if member.checkpoint_sha256 is None:
        raise ArtifactError(
            f"member {member.name} of the ensemble is a table of predictions from elsewhere, not a network",
            "Such an ensemble can be calibrated and evaluated, but it cannot predict new images.",
        )
    path = _inside(workspace, workspace.checkpoint(member.name))
    checkpoint = Checkpoint.load(path)
    digest = checkpoint.artifact.sha256 if checkpoint.artifact else ""
    if digest != member.checkpoint_sha256:
        raise ArtifactError(
            f"models/{member.name} is {digest[:12]}, but the ensemble was built from "
            f"{member.checkpoint_sha256[:12]}",
            "It was trained again since: run `skinlesion ensemble` and `skinlesion calibrate`.",
        )
    return checkpoint


def _inside(workspace: Workspace, path: Path) -> Path:
    """The path, which must not lead out of the folder of the model by way of a linked folder.

    Raises
    ------
    ArtifactError : it does.
    """
    try:
        inside = path.parent.resolve().is_relative_to(workspace.root.resolve())
    except (OSError, RuntimeError):  # a loop of links
        inside = False
    if not inside:
        raise ArtifactError(
            f"{path.parent} leads out of {workspace.root}: links out of a model are not followed",
            "Copy the folder that the link points to, or use the folder itself as the workspace.",
        )
    return path
