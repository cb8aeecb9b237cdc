"""Rank unlabelled images for annotation, and write the list to label."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from skinlesion_cli.artifacts import bundle as bundles
from skinlesion_cli.artifacts.files import atomic_file, sha256_file
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.prediction_columns import escape_formula, shortest
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.preprocess import decode_target_px
from skinlesion_cli.data.reading.inputs import ImageInput, check_named, expand, load
from skinlesion_cli.data.reading.limits import MAX_PIXELS
from skinlesion_cli.decisions import active_learning
from skinlesion_cli.errors import ExitCode, ImageError, UsageError, name_items
from skinlesion_cli.inference import tta
from skinlesion_cli.inference.engine import Engine
from skinlesion_cli.inference.loading import load_engine
from skinlesion_cli.inference.runtimes.base import softmax
from skinlesion_cli.parallel import in_batches
from skinlesion_cli.progress import Reporter
from skinlesion_cli.stages.result import StageResult
from skinlesion_cli.taxonomy import CLASS_NAMES

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
_BATCH = 16


@dataclass(frozen=True)
class SelectConfig:
    """What to choose from, how many, and by what (`active_learning.STRATEGIES`)."""

    workspace: Path
    inputs: Sequence[str]
    output: Path
    listed: Iterable[str] = ()
    count: int = 100
    strategy: str = "mixed"
    device: str = "auto"
    runtime: str = "auto"
    max_pixels: int = MAX_PIXELS


def run(config: SelectConfig, reporter: Reporter) -> StageResult:
    """Write the list, most wanted first; images that the dataset already has are left out."""
    if config.strategy not in active_learning.STRATEGIES:
        raise UsageError(
            f"no strategy named {config.strategy!r}", "Strategies: " + ", ".join(active_learning.STRATEGIES)
        )
    check_named(config.inputs)
    workspace = Workspace(config.workspace)
    bundle = bundles.from_workspace(workspace)
    engine = load_engine(bundle, config.device, config.runtime, note=reporter.note)
    known = _labelled(workspace)
    ids: list[str] = []
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    failed: list[str] = []
    n_known = 0
    with reporter.task("looking at images", unit="images") as task:
        for batch in in_batches(expand(config.inputs, config.listed), _BATCH):
            fresh = [s for s in batch if not known or s.member or not _is_known(s, known)]
            n_known += len(batch) - len(fresh)
            images = {}
            for source in fresh:
                try:
                    images[source.id] = load(
                        source, max_pixels=config.max_pixels, target_px=_target_px(engine)
                    )
                except ImageError as error:
                    failed.append(f"{source.id} ({error.reason}: {error.message})")
            if images:
                ids += images
                found.append(_look(engine, list(images.values())))
            task.advance(len(batch))
    if not ids:
        raise UsageError(
            "there is no unlabelled image to choose from"
            + (f"; {n_known} are in the dataset already" if n_known else ""),
            "Name a folder with images that were not labelled yet.",
        )
    merged, opinions, features = (
        np.concatenate(parts, axis=axis)
        for parts, axis in zip(zip(*found, strict=True), (0, 1, 0), strict=True)
    )
    outcome = bundle.calibration.decide(merged)
    scores = {
        "margin": active_learning.margin_uncertainty(outcome.probabilities),
        "entropy": active_learning.entropy(outcome.probabilities),
        "disagreement": active_learning.disagreement(opinions),
    }
    chosen = active_learning.select(config.strategy, config.count, scores, features)
    with atomic_file(config.output, "w") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for rank, index in enumerate(chosen, start=1):
            decision = CLASS_NAMES[outcome.decisions.decided[index]]
            values = [shortest(scores[name][index]) for name in ("margin", "entropy", "disagreement")]
            table.writerow(
                [rank, escape_formula(ids[index]), "", decision, *values, config.strategy, bundle.sha256]
            )
    whose = "views" if len(engine.members) == 1 else "networks"
    return StageResult(
        command="select",
        headline=[
            f"{len(chosen)} of {len(ids)} images to label, by {config.strategy}; {n_known} are labelled already",
            f"fill in the column label, then `skinlesion download --from {config.output} --append`",
        ],
        figures={
            "images": len(ids),
            "selected": len(chosen),
            "already_labelled": n_known,
            "failed": len(failed),
            "strategy": config.strategy,
            "disagreement_of": whose,
            "mean_entropy": float(scores["entropy"].mean()),
            "mean_entropy_selected": float(scores["entropy"][chosen].mean()),
            "model_sha256": bundle.sha256,
        },
        artifacts=[str(config.output)],
        warnings=[f"{len(failed)} images could not be read: {name_items(failed)}"] if failed else [],
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
        return False  # reading it will tell what is wrong


def _target_px(engine: Engine) -> int:
    return max(decode_target_px(member.preprocessing) for member in engine.members)


def _look(engine: Engine, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Merged probabilities (n, 7), opinions (m, n, 7), and features (n, n_features) of a batch.

    Opinions are the networks, each averaged over its views; with a single network its views.
    """
    views = tuple(dict.fromkeys(("identity", *engine.views)))
    members, pooled = [], []
    for member in engine.members:
        pixels = np.stack([engine.to_input(image, member.preprocessing) for image in images])
        seen = {}
        for view in views:
            logits, maps = member.runtime.logits_and_features(tta.apply(view, pixels))
            seen[view] = softmax(logits)
            if view == "identity":
                pooled.append(maps.mean(axis=(2, 3)))
        members.append(np.stack([seen[view] for view in engine.views]))
    stacked = np.stack(members)  # (members, views, n, 7)
    means = stacked.mean(axis=1, dtype=np.float64).astype(np.float32)
    opinions = stacked[0] if len(stacked) == 1 else means
    return engine.rule.merge(means), opinions, np.concatenate(pooled, axis=1)
