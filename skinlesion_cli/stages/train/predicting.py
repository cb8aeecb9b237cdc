"""Stored predictions on the images that a network was not trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.files import sha256_bytes
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.workspace import with_metadata
from skinlesion_cli.config.schema import canonical_json
from skinlesion_cli.inference.runtimes.torch import TorchRuntime, one_thread_per_call
from skinlesion_cli.inference.stored_views import stored_views, view_probabilities
from skinlesion_cli.models.network import restore_network
from skinlesion_cli.parallel import available_cores
from skinlesion_cli.stages.train.job import Job

# The held-out images of one fold, and those of all folds,
# each predicted by the network that was not trained on it.
HELD_OUT, OUT_OF_FOLD = "heldout", "oof"


def predict_parts(job: Job, checkpoint: Checkpoint) -> list[Path]:
    """Predict the held-out parts, unless this was done before with the same checkpoint and all views.

    A network with a branch for patient metadata predicts them twice: from the images alone, and with what is
    known of the patients, so that each of the two is calibrated on what `predict` does.
    """
    held_out = "val" if job.fold is None else HELD_OUT
    parts = {held_out: job.validation_ids, "test": job.data.split.ids("test")}
    views = stored_views(job.preprocessing)
    with_branch = (False, True) if job.settings.recipe.metadata_fields else (False,)
    written = []
    runtime = None
    for (part, ids), informed in product(parts.items(), with_branch):
        if not ids:
            continue
        if informed:
            part = with_metadata(part)
        path = job.workspace.predictions(job.name, part)
        written.append(path)
        if _is_current(path, checkpoint, views):
            continue
        on_cpu = job.device.type == "cpu"
        runtime = runtime or TorchRuntime(restore_network(checkpoint), str(job.device), singly=on_cpu)
        task = job.reporter.task(f"predicting {part}, {len(views)} views", total=len(ids), unit="images")
        with task as bar, one_thread_per_call() if on_cpu else nullcontext():
            fields = (batch for _, batch in job.fields(ids))
            probabilities = view_probabilities(
                runtime,
                fields,
                job.preprocessing,
                views,
                bar.advance,
                metadata=job.metadata(ids) if informed else None,
                threads=available_cores() if on_cpu else 1,
            )
        fold = "" if job.fold is None or part.startswith("test") else str(job.fold)
        table = job.data.manifest.rows(ids)[["id", "lesion_id", "label"]].assign(fold=fold)
        Predictions(table, probabilities, views, source=checkpoint.name, part=part, classes=job.classes).save(
            path, inputs=job.data.inputs | {"checkpoint": _sha256_of(checkpoint)}
        )
    return written


def write_out_of_fold(jobs: list[Job], trained: list[Checkpoint]) -> list[Path]:
    """Every image predicted by the network of the fold that held it out, sorted by id; of networks with a
    branch for patient metadata a second time, with it.
    """
    names = [HELD_OUT, OUT_OF_FOLD]
    written = [_write_joined(jobs, trained, *names)]
    if jobs[0].settings.recipe.metadata_fields:
        written.append(_write_joined(jobs, trained, *map(with_metadata, names)))
    return written


def _write_joined(jobs: list[Job], trained: list[Checkpoint], held_out: str, joined: str) -> Path:
    first = jobs[0]
    path = first.workspace.predictions(first.settings.arch, joined)
    parts = [Predictions.load(job.workspace.predictions(job.name, held_out)) for job in jobs]
    table = pd.concat([part.table for part in parts], ignore_index=True)
    order = np.argsort(table["id"].to_numpy(dtype=str), kind="stable")
    view_probabilities = np.concatenate([part.view_probabilities for part in parts])
    # One hash for the checkpoint of each fold, and one for all of them under the usual role.
    folds = {
        f"checkpoint-fold{job.fold}": _sha256_of(checkpoint)
        for job, checkpoint in zip(jobs, trained, strict=True)
    }
    all_folds = sha256_bytes(canonical_json(folds))
    Predictions(
        table.iloc[order].reset_index(drop=True),
        view_probabilities[order],
        parts[0].views,
        source=first.settings.arch,
        part=joined,
        classes=first.classes,
    ).save(path, inputs=first.data.inputs | folds | {"checkpoint": all_folds})
    return path


def _sha256_of(checkpoint: Checkpoint) -> str:
    if checkpoint.artifact is None:
        raise ValueError("a checkpoint read from disk carries its envelope")
    return checkpoint.artifact.sha256


def _is_current(path: Path, checkpoint: Checkpoint, views: Sequence[str]) -> bool:
    """Whether the stored predictions were made with this checkpoint and all views."""
    if not path.exists():
        return False
    envelope = json.loads(path.read_text(encoding="utf-8"))
    if envelope.get("body", {}).get("views") != list(views):
        return False
    same: bool = envelope.get("inputs", {}).get("checkpoint") == _sha256_of(checkpoint)
    return same
