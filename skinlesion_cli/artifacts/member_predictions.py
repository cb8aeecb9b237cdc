"""Members of an ensemble: single networks, and networks trained in folds, which count as one member.

A network trained in folds has one checkpoint per fold. Its validation predictions are the out-of-fold ones
(each image predicted by the one network that did not train on it); on new images all its folds are averaged.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.workspace import Workspace, with_metadata

_FOLD_ROLE = "checkpoint-fold"


def read_validation(workspace: Workspace, name: str, *, metadata: bool = False) -> Predictions:
    """Predictions of images that the member did not train on: out-of-fold ones where it has folds.

    `metadata` : those that were made with patient metadata; of a network without a branch for it, the others.
    """
    part = "oof" if workspace.predictions(name, "oof").exists() else "val"
    return Predictions.load(_with_metadata(workspace, name, part, metadata), hint=_hint(name))


def takes_metadata(workspace: Workspace, name: str) -> bool:
    """Whether the member has validation predictions that were made with patient metadata."""
    return any(workspace.predictions(name, with_metadata(part)).exists() for part in ("oof", "val"))


def has_test(workspace: Workspace, name: str) -> bool:
    """Whether the member, or every fold of it, has predicted the test images."""
    paths = _test_paths(workspace, name)
    return bool(paths) and all(path.exists() for path in paths)


def read_test(workspace: Workspace, name: str, *, metadata: bool = False) -> Predictions:
    """Predictions of the test images; of a member with folds, the mean of its folds, view by view.

    `metadata` : as for `read_validation`.
    """
    paths = _test_paths(workspace, name, metadata)
    parts = [Predictions.load(path, hint=_hint(name)) for path in paths]
    stack = np.stack([part.view_probabilities for part in parts])
    mean = np.asarray(stack.mean(axis=0, dtype=np.float64), dtype=np.float32)
    return replace(parts[0], view_probabilities=mean, source=name)


def networks(validation: Predictions) -> list[tuple[str, str | None]]:
    """Name and checkpoint hash of each network behind a member's validation predictions."""
    inputs = validation.artifact.inputs if validation.artifact else {}
    folds = sorted(
        (int(role.removeprefix(_FOLD_ROLE)), digest)
        for role, digest in inputs.items()
        if role.startswith(_FOLD_ROLE)
    )
    if folds:
        return [(f"{validation.source}-fold{fold}", digest) for fold, digest in folds]
    return [(validation.source, inputs.get("checkpoint"))]


def _test_paths(workspace: Workspace, name: str, metadata: bool = False) -> list[Path]:
    networks = [name]
    if workspace.predictions(name, "oof").exists():
        networks = [f"{name}-fold{fold}" for fold in workspace.folds(name)]
    return [_with_metadata(workspace, network, "test", metadata) for network in networks]


def _with_metadata(workspace: Workspace, name: str, part: str, metadata: bool) -> Path:
    path = workspace.predictions(name, with_metadata(part))
    return path if metadata and path.exists() else workspace.predictions(name, part)


def _hint(name: str) -> str:
    return f"Run `skinlesion train --arch {name}` again: it predicts what is missing."
