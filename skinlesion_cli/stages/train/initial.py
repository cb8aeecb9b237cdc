"""Starting from the networks of a finished model, whose own training images may not judge what comes of it."""

from __future__ import annotations

from pathlib import Path

from skinlesion_cli.artifacts import bundle as bundles
from skinlesion_cli.artifacts import predictions as stored
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.errors import DataError, UsageError, name_items
from skinlesion_cli.models.network import LesionNet, load_weights
from skinlesion_cli.stages.train.job import MODEL_PREFIX, Job


def start_from_model(job: Job, network: LesionNet) -> str | None:
    """Load a member of the model, classifier included; with folds, another member for each fold.

    Returns where the weights came from; None where the job does not start from a model.

    Raises
    ------
    DataError : images that would judge the new network are among those the model was trained on.
    UsageError : the network has a metadata branch, which the model has not.
    """
    if not job.config.weights.startswith(MODEL_PREFIX):
        return None
    if job.config.recipe.metadata_fields:
        raise UsageError("--init and --metadata exclude each other: the model has no branch for patient data")
    folder = bundles.named(job.config.weights.removeprefix(MODEL_PREFIX))
    bundle = bundles.from_workspace(folder)
    member = bundle.members[(job.fold or 0) % len(bundle.members)]
    _refuse_seen(job, folder.ensemble_predictions("val"), bundle.model_id, member)
    load_weights(network, member.weights, member.name)
    digest = member.artifact.sha256[:12] if member.artifact else ""
    return f"model {bundle.model_id}, {member.name} {digest}"


def _refuse_seen(job: Job, path: Path, model_id: str, member: Checkpoint) -> None:
    """Every image that a packed model was trained on is named in the predictions packed with it.

    A fold's network was not trained on the fold that it held out, so that may judge what comes of this network.
    """
    if not path.exists():
        job.reporter.note(
            f"{model_id} does not say what it was trained on: check that it has not seen your images"
        )
        return
    known = stored.read(path).table
    judging = set(job.validation_ids) | set(job.data.split.ids("test"))
    if member.fold is not None:
        known = known[known["fold"] != str(member.fold)]
    seen = sorted(judging & set(known["id"]))
    if seen:
        raise DataError(
            f"{len(seen)} validation or test images were in the training of {model_id}: {name_items(seen)}",
            "Figures on them would flatter; start from ImageNet weights, or train on other images.",
        )
