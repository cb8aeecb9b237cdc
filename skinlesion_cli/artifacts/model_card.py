"""The card of a model that is shared: what it is, its figures as they are stored, and how to use it."""

from __future__ import annotations

from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.decisions.triage_policy import triage_policy
from skinlesion_cli.taxonomy import DISCLAIMER

# Read by the hub. A licence is for the owner to choose: of the images, too, that it was trained on.
_HEAD = """\
---
library_name: skinlesion
pipeline_tag: image-classification
tags: [skinlesion, dermoscopy, calibration]
---
"""


def render(bundle: Bundle, name: str) -> str:
    """Markdown; `name` is that on the hub, `hf://owner/name`."""
    rows = [
        f"| {member.name} | {member.weight:.4f} | {_shown(member.validation_bacc)} |"
        for member in bundle.ensemble.members
    ]
    figures = bundle.ensemble.figures
    policy = triage_policy(bundle.calibration.rule, has_gate=bundle.gate is not None)
    lines = [
        _HEAD,
        f"# {name.rpartition('/')[2]}",
        "",
        f"{DISCLAIMER}",
        "",
        f"Classes of dermoscopic images: {', '.join(bundle.classes.codes)}; by {len(rows)} networks.",
        "",
        "```sh",
        f"skinlesion predict ./images --model {name}@COMMIT",
        "```",
        "",
        "Name a commit, so that the model cannot change between runs. Its files are verified by hash,",
        f"and `skinlesion predict` states the hash of the whole model, `{bundle.sha256}`.",
        "",
        "| network | weight | balanced accuracy on validation images |",
        "|---|---|---|",
        *rows,
        "",
        f"The ensemble: {_shown(figures.get('validation_bacc'))} on {figures.get('images', 'its')} "
        "validation images, on which its weights were chosen: not a test.",
        "",
        f"Calibrated with the policy `{bundle.calibration.policy}` and the views "
        f"`{bundle.calibration.tta_mode}`. An image gets the first level that fits:",
        "",
        *(f"- **{each.level}**: {each.sentence}" for each in policy),
        "",
    ]
    return "\n".join(lines)


def _shown(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "not measured"
