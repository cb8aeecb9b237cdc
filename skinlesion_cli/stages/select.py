"""Rank unlabelled images for annotation, and write the list to label."""

from __future__ import annotations

import csv
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import PositiveInt, SkipValidation

from skinlesion_cli.artifacts import output_checks
from skinlesion_cli.artifacts.bundle import Bundle, locate_finished
from skinlesion_cli.artifacts.files import atomic_file, sha256_file
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.prediction_columns import escape_formula, shortest
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.settings import StageSettings, one_of
from skinlesion_cli.data.reading.folders import summary_lines
from skinlesion_cli.data.reading.inputs import ImageInput, check_named, expand
from skinlesion_cli.data.reading.limits import MAX_PIXELS
from skinlesion_cli.decisions import active_learning
from skinlesion_cli.errors import ExitCode, UsageError, name_items
from skinlesion_cli.inference.prediction import ERROR, Prediction
from skinlesion_cli.inference.predictor import PredictedBatch, Predictor
from skinlesion_cli.inference.runtimes.registry import RUNTIMES
from skinlesion_cli.models.devices import NAMES as DEVICES
from skinlesion_cli.parallel import available_cores, in_batches, in_order
from skinlesion_cli.progress import Reporter
from skinlesion_cli.result import StageResult, counted

COLUMNS = (
    "rank",
    "image",
    "label",
    "decision",
    "margin",
    "entropy",
    "disagreement",
    "strategy",
    "model_sha256",
)
_BATCH = 4
# Calibrated probabilities, opinions and features of a batch.
_Values = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class _Measured:
    """A batch of images, those of them that are not labelled yet, and what was predicted of these."""

    n_images: int
    n_fresh: int
    predictions: Sequence[Prediction]
    values: list[_Values]


class SelectSettings(StageSettings):
    """What to choose from, how many, by what (`active_learning.STRATEGIES`), and by which model
    (`artifacts.bundle.locate_model`).
    """

    workspace: Path
    inputs: tuple[str, ...]
    output: Path
    listed: SkipValidation[Iterable[str]] = ()
    count: PositiveInt = 100
    strategy: Annotated[str, one_of(active_learning.STRATEGIES)] = "mixed"
    device: Annotated[str, one_of(DEVICES)] = "auto"
    runtime: Annotated[str, one_of(RUNTIMES, also=("auto",))] = "auto"
    model: str | None = None
    max_pixels: PositiveInt = MAX_PIXELS


def _is_unlabelled_list(path: Path) -> bool:
    """Whether a file is a list by this command into which nobody has written a label yet."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            return tuple(rows.fieldnames or ()) == COLUMNS and not any(row["label"] for row in rows)
    except (OSError, ValueError, csv.Error):
        return False


def _import_command(settings: SelectSettings) -> str:
    """How the labels become part of the dataset; images that are not beside the list are looked up in their
    folder.
    """
    command = f"skinlesion download --from {shlex.quote(str(settings.output))}"
    if Workspace(settings.workspace).manifest.exists():
        command += " --append"
    folder = Path(settings.inputs[0]) if len(settings.inputs) == 1 else None
    if folder is None or not folder.is_dir() or folder.resolve() == settings.output.resolve().parent:
        return command
    return f"{command} --images {shlex.quote(str(folder))}"


def run(settings: SelectSettings, reporter: Reporter) -> StageResult:
    """Write the list, most informative first; images that the dataset already has are omitted."""
    check_named(settings.inputs)
    output_checks.check_file(settings.output, _is_unlabelled_list, "an unlabelled list", settings.inputs)
    workspace = Workspace(settings.workspace)
    bundle = Bundle.load(locate_finished(workspace, settings.model))
    reporter.note(f"model: {bundle.model_id} ({bundle.sha256[:12]})")
    predictor = Predictor.of_bundle(
        bundle,
        device=settings.device,
        runtime=settings.runtime,
        max_pixels=settings.max_pixels,
        note=reporter.note,
    )
    known = _labelled(workspace)
    predictions: list[Prediction] = []
    parts: list[_Values] = []
    failed: list[str] = []
    n_known = 0
    passed_over: Counter[str] = Counter()
    with reporter.task("predicting", unit="images") as task:

        def measure(batch: list[ImageInput]) -> _Measured:
            fresh = [s for s in batch if not known or s.member or not _is_known(s, known)]
            predicted = predictor.run(fresh, keep_layers=True, keep_views=True)
            return _Measured(len(batch), len(fresh), predicted.predictions, _values(predicted))

        batches = in_batches(expand(settings.inputs, settings.listed, passed_over=passed_over), _BATCH)
        for measured in in_order(batches, measure, threads=available_cores()):
            n_known += measured.n_images - measured.n_fresh
            failed += [f"{p.id} ({p.error})" for p in measured.predictions if p.status == ERROR]
            predictions += [p for p in measured.predictions if p.status != ERROR]
            parts += measured.values
            task.advance(measured.n_images)
    if not predictions:
        raise UsageError(
            "there is no unlabelled image to choose from"
            + (f"; {n_known} are in the dataset already" if n_known else ""),
            "Name a folder with images that have not been labelled yet.",
        )
    probabilities, opinions, features = (
        np.concatenate(values, axis=axis)
        for values, axis in zip(zip(*parts, strict=True), (0, 1, 0), strict=True)
    )
    scores = {
        "margin": active_learning.margin_uncertainty(probabilities),
        "entropy": active_learning.entropy(probabilities),
        "disagreement": active_learning.disagreement(opinions),
    }
    chosen = active_learning.select(settings.strategy, settings.count, scores, features)
    with atomic_file(settings.output, "w") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for rank, index in enumerate(chosen, start=1):
            chosen_one = predictions[index]
            values = [shortest(scores[name][index]) for name in ("margin", "entropy", "disagreement")]
            table.writerow(
                [
                    rank,
                    escape_formula(chosen_one.id),
                    "",
                    chosen_one.decision,
                    *values,
                    settings.strategy,
                    bundle.sha256,
                ]
            )
    copies = [predictions[index].id for index in chosen if predictions[index].in_training]
    warnings = [f"{counted(len(failed), 'image')} could not be read: {name_items(failed)}"] if failed else []
    if copies:
        warnings.append(
            f"{len(copies)} of the images to label are in the training data already: {name_items(copies)}"
        )
    whose = "views" if len(predictor.engine.members) == 1 else "networks"
    return StageResult(
        command="select",
        headline=[
            f"{len(chosen):,} of {counted(len(predictions), 'image')} to label, by {settings.strategy}; "
            f"{n_known:,} are labelled already",
            f"fill in the column label, then `{_import_command(settings)}`",
            *summary_lines(passed_over),
        ],
        figures={
            "images": len(predictions),
            "selected": len(chosen),
            "already_labelled": n_known,
            "failed": len(failed),
            "passed_over": dict(passed_over),
            "strategy": settings.strategy,
            "disagreement_of": whose,
            "mean_entropy": float(scores["entropy"].mean()),
            "mean_entropy_selected": float(scores["entropy"][chosen].mean()),
            "model_sha256": bundle.sha256,
        },
        artifacts=[str(settings.output)],
        warnings=warnings,
        exit_code=ExitCode.PARTIAL if failed else ExitCode.OK,
    )


def _labelled(workspace: Workspace) -> frozenset[str]:
    if not workspace.manifest.exists():
        return frozenset()
    return frozenset(Manifest.load(workspace.manifest).table["sha256"])


def _is_known(source: ImageInput, known: frozenset[str]) -> bool:
    try:
        return sha256_file(source.path) in known
    except OSError:
        return False  # predicting it reports what is wrong


def _values(batch: PredictedBatch) -> list[_Values]:
    """Calibrated probabilities (n, n_classes), opinions (m, n, n_classes), and features (n, n_features) of
    a batch; or nothing.

    Opinions are the networks, each averaged over all views; with a single network its views.
    """
    if batch.output is None or batch.probabilities is None or batch.output.view_probabilities is None:
        return []
    by_view = batch.output.view_probabilities  # (members, views, n, n_classes)
    opinions = by_view[0] if len(by_view) == 1 else by_view.mean(axis=1, dtype=np.float64).astype(np.float32)
    features = np.concatenate([layers.features.mean(axis=(2, 3)) for layers in batch.output.layers], axis=1)
    return [(batch.probabilities, opinions, features)]
