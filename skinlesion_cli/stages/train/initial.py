"""Starting from the networks of a finished model, whose own training images may not judge what comes of it."""

from __future__ import annotations

from pathlib import Path

from skinlesion_cli.artifacts import bundle as bundles
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.errors import DataError, UsageError, name_items
from skinlesion_cli.models.network import LesionNet, load_mean
from skinlesion_cli.stages.train.job import Job


def start_from_models(job: Job, network: LesionNet) -> str | None:
    """Load a member of the model, classifier included; with folds, another member for each fold.

    Of several models the mean of their members' weights is taken. Returns where the weights came from; None where
    the job does not start from a model.

    Raises
    ------
    DataError : images that would judge the new network are among those that a model was trained on.
    UsageError : the network has a metadata branch, which the models have not, or members of different folds would
        be mixed.
    """
    if not job.config.models:
        return None
    if job.config.recipe.metadata_fields:
        raise UsageError("--init and --metadata exclude each other: the model has no branch for patient data")
    members, sources = [], []
    for model in job.config.models:
        folder = bundles.resolve_model(model)
        bundle = bundles.from_workspace(folder)
        member = bundle.members[(job.fold or 0) % len(bundle.members)]
        _refuse_seen(job, folder.ensemble_predictions("val"), bundle.model_id, member)
        members.append(member)
        digest = member.artifact.sha256[:12] if member.artifact else ""
        sources.append(f"model {bundle.model_id}, {member.name} {digest}")
    if len({member.fold for member in members}) > 1:
        raise UsageError(
            f"networks of different folds have no mean that any image could judge: {'; '.join(sources)}",
            "Name models that were trained with the same folds.",
        )
    load_mean(network, [member.weights for member in members], [member.name for member in members])
    return sources[0] if len(sources) == 1 else f"mean of {len(sources)}: " + "; ".join(sources)


def _refuse_seen(job: Job, path: Path, model_id: str, member: Checkpoint) -> None:
    """Every image that a packed model was trained on is named in the predictions packed with it.

    A fold's network was not trained on the fold that it held out, so that may judge what comes of this network.
    """
    if not path.exists():
        job.reporter.note(
            f"{model_id} does not say what it was trained on: check that it has not seen your images"
        )
        return
    known = Predictions.load(path).table
    judging = set(job.validation_ids) | set(job.data.split.ids("test"))
    if member.fold is not None:
        known = known[known["fold"] != str(member.fold)]
    seen = sorted(judging & set(known["id"]))
    if seen:
        raise DataError(
            f"{len(seen)} validation or test images were in the training of {model_id}: {name_items(seen)}",
            "Figures on them would flatter; start from ImageNet weights, or train on other images.",
        )
