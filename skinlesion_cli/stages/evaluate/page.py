"""The page of an evaluation: the worst errors with maps of the model, and the model's facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.artifacts.envelope import Artifact
from skinlesion_cli.artifacts.evaluation import defined
from skinlesion_cli.artifacts.files import atomic_write
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.reading.inputs import ImageInput, load
from skinlesion_cli.decisions.evaluation.figures import Labelled
from skinlesion_cli.errors import ArtifactError, ImageError
from skinlesion_cli.explain.member_maps import ensemble_maps
from skinlesion_cli.explain.overlay import blend, steps
from skinlesion_cli.inference.predictor import Predictor
from skinlesion_cli.report.evaluation import Mistake, page, worst
from skinlesion_cli.report.plots_operating import operating_points

NAME = "report.html"
_SHOWN = 12
_HEIGHT_PX = 200


def write_evaluation_report(
    folder: Path,
    workspace: Workspace,
    data: Labelled,
    ids: Sequence[str],
    body: Mapping[str, Any],
    pictures: Mapping[str, bytes],
    artifact: Artifact,
) -> Path:
    """Write `report.html` beside `evaluation.json`.

    Overlays of the worst errors need the images and the finished ensemble of the workspace; where they are
    not there (predictions from elsewhere), the errors are listed without pictures.
    """
    labels, decided = np.asarray(data.labels), np.asarray(data.decided)
    rows = worst(labels, decided, data.probabilities, _SHOWN, data.classes)
    bundle = _bundle(workspace, artifact)
    names = [*data.classes.codes, "none"]
    # Maps are of the classes of the model, which may be finer than those that are judged.
    drawing = bundle if bundle is not None and bundle.classes.agrees_with(data.classes) else None
    shown = _pictures(workspace, drawing, [ids[row] for row in rows], labels[rows], decided[rows])
    mistakes = [
        Mistake(
            id=ids[row],
            label=names[labels[row]],
            decided=names[decided[row]],
            p_label=float(data.probabilities[row, labels[row]]),
            p_decided=float(data.probabilities[row, min(decided[row], data.classes.n_classes - 1)]),
            picture=picture,
        )
        for row, picture in zip(rows, shown, strict=True)
    ]
    drawn = dict(pictures) | {
        "operating-points.png": operating_points(labels, data.probabilities, decided, data.classes)
    }
    html = page(
        defined(body),
        data.classes,
        drawn,
        mistakes,
        int((labels != decided).sum()),
        _facts(bundle) if bundle else {"model": "predictions from elsewhere; no finished ensemble fits them"},
        {"evaluation": artifact.sha256}
        | {f"made from: {role}": digest for role, digest in artifact.inputs.items()}
        | {f"version of {name}": version for name, version in artifact.made_with.items()},
    )
    path = folder / NAME
    atomic_write(path, html.encode("utf-8", "backslashreplace"))
    return path


def _bundle(workspace: Workspace, artifact: Artifact) -> Bundle | None:
    """The workspace's ensemble, if it is the one whose calibration decided."""
    try:
        bundle = Bundle.load(workspace)
    except ArtifactError:
        return None
    calibration = bundle.calibration.artifact
    judged = artifact.inputs.get("calibration")
    return bundle if calibration is not None and judged == calibration.sha256 else None


def _pictures(
    workspace: Workspace, bundle: Bundle | None, ids: Sequence[str], labels: np.ndarray, decided: np.ndarray
) -> list[bytes | None]:
    """JPEG of each image, and with a bundle its maps of the decided and of the true class beside it."""
    if not ids or not workspace.manifest.exists():
        return [None] * len(ids)
    files = dict(Manifest.load(workspace.manifest).table.set_index("id")["file"])
    predictor = Predictor.of_bundle(bundle) if bundle else None
    pictures: list[bytes | None] = []
    for identity, label, decision in zip(ids, labels, decided, strict=True):
        try:
            source = ImageInput(identity, workspace.images / files[identity])
            image = load(source).pixels
        except (KeyError, ImageError):
            pictures.append(None)
            continue
        height, width = image.shape[:2]
        size = max(1, round(width * _HEIGHT_PX / height)), _HEIGHT_PX
        small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
        parts = [small]
        if predictor is not None and 0 <= decision < predictor.bundle.classes.n_classes:
            maps = _maps(predictor, source, [int(decision), int(label)])
            parts += [blend(small, steps(heat, *size)) for heat in maps]
        content = BytesIO()
        Image.fromarray(np.concatenate(parts, axis=1)).save(content, format="JPEG", quality=85)
        pictures.append(content.getvalue())
    return pictures


def _maps(predictor: Predictor, source: ImageInput, classes: Sequence[int]) -> list[np.ndarray]:
    """The maps of an image for some classes, from one forward pass."""
    output = predictor.run([source], keep_layers=True).output
    if output is None:
        return []
    members = predictor.engine.members
    return [ensemble_maps(members, output.layers, np.array([index]))[0] for index in classes]


def _facts(bundle: Bundle) -> dict[str, object]:
    calibration = bundle.calibration
    facts: dict[str, object] = {"model": bundle.model_id, "model sha256": bundle.sha256}
    for member, weight in zip(bundle.members, bundle.ensemble.weights, strict=True):
        facts[f"network {member.name}"] = (
            f"weight {weight:.3f}, {member.preprocessing.input_size_px} px, recipe {member.recipe.name}, "
            f"started from {member.initial_weights}, seed {member.seed}"
        )
    facts["test-time views"] = calibration.tta_mode
    facts["policy of thresholds"] = calibration.policy
    facts["thresholds"] = (
        ", ".join(f"{name} {value:.3f}" for name, value in calibration.rule.fires_above.items()) or "none"
    )
    facts["malignant operating point"] = calibration.rule.malignant_threshold
    facts["probability calibration"] = calibration.rule.probability_calibration.method
    facts["intended use"] = "research on dermoscopic images of single lesions; no use on patients"
    return facts
