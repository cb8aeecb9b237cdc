"""What usually comes after a calibration: the gate, an evaluation, then predictions."""

from __future__ import annotations

from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.decisions.quality_gate import FEWEST_IMAGES

PREDICT = "skinlesion predict ./images --report"


def after_calibration(workspace: Workspace, *, evaluated: bool = False) -> str:
    """The command that a calibrated model needs next.

    `evaluated` : the model was judged as it is now. A gate is suggested where enough images are there to fit
    it, an evaluation where there are predictions of test images.
    """
    if not workspace.gate.exists() and _can_fit_gate(workspace):
        return "skinlesion gate"
    if not evaluated and workspace.ensemble_predictions("test").exists():
        return "skinlesion evaluate --report"
    return PREDICT


def _can_fit_gate(workspace: Workspace) -> bool:
    if not (workspace.manifest.exists() and workspace.split.exists()):
        return False
    split = Split.load(workspace.split, Manifest.load(workspace.manifest))
    return len(split.ids("train")) >= FEWEST_IMAGES
