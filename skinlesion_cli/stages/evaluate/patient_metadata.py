"""What patient metadata adds: the same networks and images, with it and without, compared in pairs."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.workspace import Workspace, with_metadata
from skinlesion_cli.decisions.evaluation import figures as judging
from skinlesion_cli.decisions.policies.registry import ARGMAX
from skinlesion_cli.errors import ArtifactError
from skinlesion_cli.stages.evaluate.decided import by_asked_classes, calibrated, plain
from skinlesion_cli.stages.evaluate.judged import Judged
from skinlesion_cli.stages.evaluate.settings import ENSEMBLE, EvaluateSettings

COMPARED = ("bacc", "malignant_bacc", "macro_auc", "malignant/auc", "log_loss")


def metadata_gain(
    workspace: Workspace, settings: EvaluateSettings, judged: Judged, names: tuple[str, ...] = COMPARED
) -> dict[str, Any] | None:
    """Figures of the images of which age, sex or site is known, alone and with it; paired differences.

    All others are predicted from the image alone either way. None where the networks take no patient
    metadata, or nothing is known of any image.

    Raises
    ------
    ArtifactError : the two tables of predictions are of different images.
    """
    path = workspace.ensemble_predictions(with_metadata(settings.part))
    if settings.source != ENSEMBLE or not path.exists():
        return None
    predictions = Predictions.load(path)
    has_calibration = judged.how != ARGMAX and workspace.metadata_calibration.exists()
    informed = (
        calibrated(workspace, predictions, workspace.metadata_calibration)
        if has_calibration
        else plain(predictions, ())
    )
    informed = by_asked_classes(informed, settings)
    place = {identity: row for row, identity in enumerate(informed.ids)}
    missing = [identity for identity in judged.ids if identity not in place]
    if missing:
        raise ArtifactError(
            f"{path.name} lacks {len(missing)} of the images, such as {missing[0]}",
            "Run `skinlesion ensemble` again.",
        )
    informed = informed.at(np.array([place[identity] for identity in judged.ids], dtype=np.int64))
    # A network says exactly the same of an image of which nothing is known.
    differ = informed.predictions.view_probabilities != judged.predictions.view_probabilities
    known = np.flatnonzero(differ.any(axis=(1, 2)))
    if not len(known):
        return None
    alone, given = (
        judging.evaluate(
            # The same lesions, labels and seed: the same draws, so that differences are paired.
            replace(each.at(known).labelled(), lesion_ids=judged.predictions.lesion_ids[known]),
            n_resamples=settings.n_resamples,
            seed=settings.seed,
        )
        for each in (judged, informed)
    )
    return {
        "images": len(known),
        "images_without": len(judged.ids) - len(known),
        "decision": informed.how,
        "differences": {
            name: asdict(given.difference(alone, name))
            | {"image_alone": alone.values[name], "with_metadata": given.values[name]}
            for name in names
        },
    }
