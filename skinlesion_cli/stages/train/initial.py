"""The networks of a finished model as a starting point; images that they were trained
on must not evaluate the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from skinlesion_cli.artifacts.bundle import Bundle, resolve_model
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.class_list import require_same_classes
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.errors import DataError, UsageError, name_items
from skinlesion_cli.models.network import LesionNet, load_weights
from skinlesion_cli.models.timm_format import ForeignNetwork
from skinlesion_cli.stages.train.job import Job


@dataclass(frozen=True)
class StartingModel:
    """A finished model, and the folder that it was loaded from."""

    folder: Workspace
    bundle: Bundle

    @classmethod
    def load(cls, name: str) -> StartingModel:
        """Load `builtin`, or the model in this folder."""
        folder = resolve_model(name)
        return cls(folder, Bundle.load(folder))

    def member(self, job: Job) -> Checkpoint:
        """The network for this job: that of its fold, or the first one.

        Raises
        ------
        DataError : images that would evaluate the new network were used to train this one.
        """
        member = self.bundle.members[(job.fold or 0) % len(self.bundle.members)]
        _refuse_seen(job, self.folder.ensemble_predictions("val"), self.bundle.model_id, member)
        return member

    def describe(self, member: Checkpoint) -> str:
        """The model, its network and the hash of that network."""
        digest = member.artifact.sha256[:12] if member.artifact else ""
        return f"model {self.bundle.model_id}, {member.name} {digest}"


def network_of_model(name: str) -> ForeignNetwork | None:
    """The architecture of a finished model with its arguments; None for the recommended ones."""
    return ForeignNetwork.of_checkpoint(StartingModel.load(name).bundle.members[0])


def start_from_model(job: Job, network: LesionNet) -> str | None:
    """Load the weights of the model, classifier included; with folds, those of the network of the same fold.

    Returns a description of their source; None if the job does not start from a model.

    Raises
    ------
    DataError : images that would evaluate the new network were used to train the model.
    UsageError : the network and the model take different patient metadata.
    ArtifactError : the model has another class list.
    """
    if job.settings.model is None:
        return None
    model = StartingModel.load(job.settings.model)
    member = model.member(job)
    theirs, ours = member.recipe.metadata_fields, job.settings.recipe.metadata_fields
    if theirs != ours:
        raise UsageError(
            f"{model.bundle.model_id} takes the patient metadata {', '.join(theirs) or 'none'}, not "
            f"{', '.join(ours) or 'none'}",
            f"Add --metadata {','.join(theirs)}." if theirs else "Omit --metadata.",
        )
    require_same_classes(
        {model.bundle.model_id: member.classes, "the dataset": job.classes},
        "Start from ImageNet weights instead: omit --init.",
    )
    load_weights(network, member.weights, member.name)
    return model.describe(member)


def _refuse_seen(job: Job, path: Path, model_id: str, member: Checkpoint) -> None:
    """All images that a packed model was trained on are named in the predictions packed with it.

    The network of a fold was not trained on its held-out fold, which may therefore evaluate the new network.
    """
    if not path.exists():
        job.reporter.note(
            f"{model_id} does not state what it was trained on: make sure that it has not seen your images"
        )
        return
    known = Predictions.load(path).table
    evaluating = set(job.validation_ids) | set(job.data.split.ids("test"))
    if member.fold is not None:
        known = known[known["fold"] != str(member.fold)]
    seen = sorted(evaluating & set(known["id"]))
    if seen:
        raise DataError(
            f"{len(seen)} validation or test images were in the training of {model_id}: {name_items(seen)}",
            "Results on them would be too optimistic; start from ImageNet weights, or use other images.",
        )
