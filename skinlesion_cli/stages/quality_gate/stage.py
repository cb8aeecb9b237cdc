"""Fit the quality gate on training images, and measure its false alarms on validation images.

The features that this takes also make the table of similar cases, and the training images are listed by
fingerprints.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, PositiveInt

from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.artifacts.files import exclusive
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.next_command import after_calibration
from skinlesion_cli.artifacts.quality_gate import StoredQualityGate
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.settings import StageSettings
from skinlesion_cli.data.quality import statistics
from skinlesion_cli.data.reading.images import read_image
from skinlesion_cli.data.reading.inputs import ImageInput
from skinlesion_cli.decisions.quality_gate import (
    FALSE_ALARM_RATE,
    FEWEST_IMAGES,
    STATISTICS,
    QualityGate,
    Verdict,
    fit_features,
    fit_gate,
)
from skinlesion_cli.decisions.statistics.bounds import binomial_interval
from skinlesion_cli.inference.predictor import Predictor
from skinlesion_cli.parallel import available_cores, in_order
from skinlesion_cli.progress import Reporter, Task
from skinlesion_cli.result import StageResult, Table, percent
from skinlesion_cli.stages.quality_gate.similar_cases import cases_tables, write_cases
from skinlesion_cli.stages.quality_gate.training_images import read_training_images


class GateSettings(StageSettings):
    """`images`: at most so many training images to fit on, and validation images to measure on."""

    workspace: Path
    false_alarm_rate: Annotated[float, Field(gt=0.0, lt=0.5)] = FALSE_ALARM_RATE
    images: PositiveInt = 4000


@dataclass(frozen=True)
class _Measured:
    """Of images, in order: statistics float64 (n, n_statistics), and features float32 (n, n_features) or
    None.
    """

    statistics: np.ndarray
    features: np.ndarray | None


def run(settings: GateSettings, reporter: Reporter) -> StageResult:
    """Write `calibration/gate.json` and `calibration/training-images.json`; from then on `predict` judges
    every image, and says which ones the model has seen in training.

    Where the workspace has a finished ensemble, the gate also looks at the features of its first network:
    those of a third of the lesions that this network was not trained on describe what is familiar, a second
    third sets the limit, and false alarms are counted on the last.
    Without an ensemble it looks at pixels alone.

    The features of all images that the network was not trained on become the table of similar cases,
    `calibration/cases.json`, and the ids of its lesions `calibration/case-ids.json`.
    """
    workspace = Workspace(settings.workspace)
    everything = Manifest.load(workspace.manifest)
    parts = Split.load(workspace.split, everything)
    predictor = _predictor(workspace)
    fold = predictor.bundle.members[0].fold if predictor else (0 if parts.n_folds else None)
    training, unseen = parts.fitted_and_judged(fold)
    thirds = _thirds(unseen, everything)
    warnings = []
    # Similar cases need features, but not as many images as the gate.
    network = predictor
    if predictor is not None and min(map(len, thirds)) < FEWEST_IMAGES:
        warnings.append(
            f"{len(unseen):,} images that {predictor.bundle.members[0].name} was not trained on are too few "
            f"to describe its features ({3 * FEWEST_IMAGES} are needed): the gate uses pixels only"
        )
        predictor = None
    if predictor is None:
        thirds = ([], [], unseen)
    training, *chosen = (_spread(ids, settings.images) for ids in (training, *thirds))
    with reporter.task("measuring", total=len(training) + sum(map(len, chosen)), unit="images") as task:
        files = partial(_measured, workspace, everything, task)
        fitted_on = files(training, None)
        familiar, limiting, judged_on = (files(ids, predictor) for ids in chosen)
        unseen = [identity for ids in chosen for identity in ids]
        of_unseen = [part.features for part in (familiar, limiting, judged_on) if part.features is not None]
        if network is not None and predictor is None:
            of_unseen = [_features(workspace, everything, unseen, network)]
    seen, about_seen = read_training_images(
        workspace.images, everything, parts, network.bundle if network is not None else None, reporter
    )
    warnings += about_seen
    model = None
    if predictor is not None and familiar.features is not None:
        model = fit_features(predictor.engine.members[0].name, familiar.features)
    gate = fit_gate(
        STATISTICS,
        fitted_on.statistics,
        settings.false_alarm_rate,
        feature_model=model,
        features=limiting.features,
        features_statistics=limiting.statistics,
    )
    verdicts = _verdicts(gate, judged_on)
    alarms = sum(verdict.flagged for verdict in verdicts)
    by_check = Counter(check for verdict in verdicts for check in verdict.failed)
    low, high = binomial_interval(alarms, len(verdicts))
    share = alarms / len(verdicts) if verdicts else None
    figures = {
        "fitted_on_images": len(fitted_on.statistics),
        "network": None if model is None else model.network,
        "familiar_images": len(familiar.statistics),
        "limit_images": len(limiting.statistics),
        "validation_images": len(verdicts),
        "false_alarms": alarms,
        "false_alarm_rate": share,
        "interval_95": [None if np.isnan(bound) else bound for bound in (low, high)],
        "wanted_rate": settings.false_alarm_rate,
        "by_check": {check: by_check[check] for check in gate.checks},
    }
    with exclusive(workspace.gate.parent, "gate"):
        assert parts.artifact is not None
        made_from = {"split": parts.artifact}
        if model is not None and predictor is not None:
            checkpoint = predictor.bundle.members[0].artifact
            assert checkpoint is not None
            made_from["checkpoint"] = checkpoint
        StoredQualityGate(gate, figures).save(workspace.gate, inputs=made_from)
        if seen is not None:
            seen.save(workspace.training_images, inputs={"split": parts.artifact})
        else:
            workspace.training_images.unlink(missing_ok=True)
        cases = None
        if network is not None:
            rows = everything.rows(unseen)
            cases = write_cases(workspace, network, rows, np.concatenate(of_unseen), parts.artifact, warnings)
    n_recognised = len(seen.fingerprints.codes) if seen is not None else 0
    rate = (
        "undefined"
        if share is None
        else f"{percent(share)} (95 % interval {percent(low)} to {percent(high)})"
    )
    looks_at = "pixels only" if model is None else f"pixels and the features of {model.network}"
    return StageResult(
        command="gate",
        headline=[
            f"quality gate of {looks_at}, fitted on {len(fitted_on.statistics):,} training images; false "
            "alarms on "
            f"{len(verdicts):,} images that it was not fitted on: {rate}",
            f"`predict` recognises {n_recognised:,} images that the model was trained or calibrated on",
        ],
        figures=figures | {"similar_cases": cases, "recognised_training_images": n_recognised},
        tables=[
            Table("False alarms", ["check", "images"], [[c, by_check[c]] for c in gate.checks]),
            *cases_tables(cases),
        ],
        artifacts=[
            str(workspace.gate),
            *([str(workspace.training_images)] if seen is not None else []),
            *([str(workspace.cases)] if cases else []),
        ],
        warnings=warnings,
        next_command=after_calibration(workspace) if network is not None else "skinlesion train --arch NAME",
    )


def _predictor(workspace: Workspace) -> Predictor | None:
    """The workspace's ensemble without its gate; None where there is none yet."""
    if not (workspace.ensemble.exists() and workspace.calibration.exists()):
        return None
    return Predictor.of_bundle(Bundle.load(workspace, with_gate=False), device="cpu")


def _thirds(ids: list[str], everything: Manifest) -> tuple[list[str], list[str], list[str]]:
    """The images by lesion in three parts, the same on every machine."""
    lesions = everything.rows(ids)["lesion_id"].tolist()
    order = sorted(set(lesions), key=lambda lesion: hashlib.sha256(lesion.encode()).digest())
    third_of = {lesion: place % 3 for place, lesion in enumerate(order)}
    first, second, last = (
        [i for i, lesion in zip(ids, lesions, strict=True) if third_of[lesion] == third] for third in range(3)
    )
    return first, second, last


def _verdicts(gate: QualityGate, measured: _Measured) -> list[Verdict]:
    rows = [dict(zip(STATISTICS, row, strict=True)) for row in measured.statistics]
    features = [None] * len(rows) if measured.features is None else list(measured.features)
    return [gate.verdict(row, feature) for row, feature in zip(rows, features, strict=True)]


def _spread(ids: list[str], most: int) -> list[str]:
    return ids if len(ids) <= most else [ids[i] for i in np.linspace(0, len(ids) - 1, most).astype(int)]


def _features(workspace: Workspace, everything: Manifest, ids: list[str], predictor: Predictor) -> np.ndarray:
    """Pooled features of the first network, float32 (n_images, n_features)."""

    def features(path: Path) -> np.ndarray:
        image = predictor.decode(ImageInput(path.name, path))
        pooled: np.ndarray = predictor.engine.pooled_features([image], 0)[0]
        return pooled

    files = [workspace.images / file for file in everything.rows(ids)["file"]]
    rows = list(in_order(files, features, threads=available_cores()))
    return np.stack(rows) if rows else np.empty((0, 1), np.float32)


def _measured(
    workspace: Workspace, everything: Manifest, task: Task, ids: list[str], predictor: Predictor | None
) -> _Measured:
    def measure(path: Path) -> tuple[dict[str, float], np.ndarray | None]:
        if predictor is None:
            return statistics(read_image(path)), None
        image = predictor.decode(ImageInput(path.name, path))
        return statistics(image), predictor.engine.pooled_features([image], 0)[0]

    files: Iterable[Path] = [workspace.images / file for file in everything.rows(ids)["file"]]
    rows, features = [], []
    for values, pooled in in_order(files, measure, threads=available_cores()):
        rows.append([values[name] for name in STATISTICS])
        features.append(pooled)
        task.advance()
    table = np.array(rows).reshape(-1, len(STATISTICS))
    return _Measured(table, None if predictor is None else np.array(features))
