"""Members of an ensemble: single networks, and networks trained in folds, which count as one member.

A network trained in folds has one checkpoint per fold. Its validation predictions are the out-of-fold ones
(each image predicted by the one network that did not train on it); on new images all its folds are averaged.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.workspace import Workspace

_FOLD_ROLE = "checkpoint-fold"


def read_validation(workspace: Workspace, name: str) -> Predictions:
    """Predictions of images that the member did not train on: out-of-fold ones where it has folds."""
    folded = workspace.predictions(name, "oof")
    return Predictions.load(
        folded if folded.exists() else workspace.predictions(name, "val"), hint=_hint(name)
    )


def has_test(workspace: Workspace, name: str) -> bool:
    """Whether the member, or every fold of it, has predicted the test images."""
    paths = _test_paths(workspace, name)
    return bool(paths) and all(path.exists() for path in paths)


def read_test(workspace: Workspace, name: str) -> Predictions:
    """Predictions of the test images; of a member with folds, the mean of its folds, view by view."""
    parts = [Predictions.load(path, hint=_hint(name)) for path in _test_paths(workspace, name)]
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


def _test_paths(workspace: Workspace, name: str) -> list[Path]:
    if workspace.predictions(name, "oof").exists():
        return [workspace.predictions(f"{name}-fold{fold}", "test") for fold in workspace.folds(name)]
    return [workspace.predictions(name, "test")]


def _hint(name: str) -> str:
    return f"Run `skinlesion train --arch {name}` again: it predicts what is missing."
