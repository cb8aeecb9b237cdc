"""What the members of an ensemble have predicted: of the same images, with the views that are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from skinlesion_cli.artifacts import member_predictions
from skinlesion_cli.artifacts.class_list import require_same_classes
from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.workspace import Workspace, with_metadata
from skinlesion_cli.errors import ArtifactError, UsageError, name_items
from skinlesion_cli.progress import Reporter

_HINT = "Train it first: `skinlesion train --arch NAME`."


def trained_members(workspace: Workspace, wanted: Sequence[str]) -> list[str]:
    """The wanted members, each once; all that are trained in the workspace if none is named.

    Raises
    ------
    UsageError : one of them is not trained in it.
    ArtifactError : no network is.
    """
    trained = workspace.members()
    unknown = [name for name in wanted if name not in trained]
    if unknown:
        raise UsageError(
            f"not trained in this workspace: {name_items(unknown)}",
            "Trained: " + (", ".join(trained) or "none") + ". " + _HINT,
        )
    names = list(dict.fromkeys(wanted)) or trained
    if not names:
        raise ArtifactError(f"no network is trained in {workspace.root}", workspace.next_step() or _HINT)
    return names


def with_views(predictions: Predictions, views: Sequence[str]) -> Predictions:
    """The same predictions with only these views, in this order.

    Raises
    ------
    ArtifactError : one of the views was not predicted.
    """
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
        splits = [artifact_of(p).inputs.get("split", "(none)") for p in (first, other)]
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


def of_test_images(
    workspace: Workspace, names: Sequence[str], views: Sequence[str], reporter: Reporter
) -> list[Predictions]:
    """Predictions of the test images; none unless all members have them, with a notice if only some do."""
    lacking = [name for name in names if not member_predictions.has_test(workspace, name)]
    if lacking:
        if len(lacking) < len(names):
            reporter.note(f"no merged predictions of the test images: {', '.join(lacking)} lack them")
        return []
    predictions = [with_views(member_predictions.read_test(workspace, name), views) for name in names]
    require_same(predictions)
    return predictions


def with_patient_data(
    workspace: Workspace, names: Sequence[str], views: Sequence[str], *, has_test: bool
) -> dict[str, list[Predictions]]:
    """The parts as members predict them with patient metadata; none where no member takes any."""
    if not any(member_predictions.takes_metadata(workspace, name) for name in names):
        return {}
    readers = {"val": member_predictions.read_validation}
    if has_test:
        readers["test"] = member_predictions.read_test
    parts: dict[str, list[Predictions]] = {}
    for part, read in readers.items():
        predictions = [with_views(read(workspace, name, metadata=True), views) for name in names]
        require_same(predictions)
        parts[with_metadata(part)] = predictions
    return parts


def artifact_of(predictions: Predictions) -> Artifact:
    """The artifact that stored predictions were read from."""
    assert predictions.artifact is not None
    return predictions.artifact
