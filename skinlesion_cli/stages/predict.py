"""Predict images with the finished ensemble: one row an image, overlays on request."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from skinlesion_cli.artifacts import bundle as bundles
from skinlesion_cli.artifacts.bundle import Bundle
from skinlesion_cli.artifacts.files import atomic_file, exclusive
from skinlesion_cli.artifacts.tables import shortest
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.images import MAX_PIXELS, read_image
from skinlesion_cli.data.inputs import ImageInput, expand
from skinlesion_cli.data.preprocess import decode_target_px, to_input
from skinlesion_cli.decisions.triage import Outcome
from skinlesion_cli.errors import ExitCode, ImageError, UsageError, name_items
from skinlesion_cli.explain.writer import OverlayWriter, Pixels
from skinlesion_cli.inference.engine import Engine, EngineMember
from skinlesion_cli.inference.stream import in_batches, read_ahead
from skinlesion_cli.progress import Reporter
from skinlesion_cli.stages.result import StageResult
from skinlesion_cli.taxonomy import CLASS_NAMES

COLUMNS = (
    "id",
    "status",
    "error",
    *(f"p_{name}" for name in CLASS_NAMES),
    "argmax",
    "decision",
    "threshold_fired",
    "malignant_probability",
    "triage",
    "model",
    "model_sha256",
)
_BATCH = 16


@dataclass(frozen=True)
class PredictConfig:
    """What to predict. `inputs` are files and folders; `listed` more files, one a line; `cam` also explains."""

    workspace: Path
    inputs: Sequence[str]
    output: Path
    listed: Iterable[str] = ()
    cam: bool = False
    device: str = "auto"
    max_pixels: int = MAX_PIXELS


def run(config: PredictConfig, reporter: Reporter) -> StageResult:
    """Predict every input; an image that cannot be read costs its own row only."""
    bundle = bundles.from_workspace(Workspace(config.workspace))
    inputs = list(expand(config.inputs, config.listed))
    if not inputs:
        raise UsageError(
            "there are no images in " + name_items(config.inputs), "Name image files or folders."
        )
    engine = load_engine(bundle, config.device)
    cam_folder = config.output.with_name(config.output.stem + "-cam") if config.cam else None
    overlays = _overlays(cam_folder, bundle, engine)
    counts: Counter[str] = Counter()
    failed: list[str] = []
    with (
        exclusive(config.output.resolve().parent, f"predict-{config.output.name}"),
        atomic_file(config.output, "w") as file,
    ):
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        with reporter.task("predicting", total=len(inputs), unit="images") as task:
            for rows in _rows(config, bundle, engine, inputs, overlays):
                for row in rows:
                    writer.writerow({key: neutral(value) for key, value in row.items()})
                    counts[row["decision"] or row["status"]] += 1
                    if row["status"] == "error":
                        failed.append(f"{row['id']} ({row['error']})")
                task.advance(len(rows))
    return _result(config, bundle, counts, failed, cam_folder)


def load_engine(bundle: Bundle, device: str) -> Engine:
    """The bundle's networks, ready to run."""
    from skinlesion_cli.inference.runtimes.torch_runtime import TorchRuntime
    from skinlesion_cli.models.devices import resolve_device
    from skinlesion_cli.models.network import restore_network

    members = []
    for checkpoint, weight in zip(bundle.members, bundle.ensemble.weights, strict=True):
        network = restore_network(checkpoint)
        members.append(
            EngineMember(
                name=checkpoint.name,
                weight=float(weight),
                preprocessing=checkpoint.preprocessing,
                runtime=TorchRuntime(network, str(resolve_device(device))),
                classifier=network.classifier.weight.detach().cpu().numpy(),
            )
        )
    return Engine(members, bundle.calibration.views, to_input)


def _overlays(folder: Path | None, bundle: Bundle, engine: Engine) -> OverlayWriter | None:
    if folder is None:
        return None
    return OverlayWriter(
        folder,
        weights=[member.weight for member in engine.members],
        classifiers=[member.classifier for member in engine.members],
        thresholds=bundle.calibration.rule.thresholds,
    )


def _rows(
    config: PredictConfig,
    bundle: Bundle,
    engine: Engine,
    inputs: list[ImageInput],
    overlays: OverlayWriter | None,
) -> Iterable[list[dict[str, Any]]]:
    target_px = max(decode_target_px(m.preprocessing) for m in engine.members)

    def load(source: ImageInput) -> np.ndarray | ImageError:
        try:
            return read_image(source.path, max_pixels=config.max_pixels, target_px=target_px)
        except ImageError as error:
            return error

    for batch in in_batches(read_ahead(inputs, load, threads=2, ahead=2 * _BATCH), _BATCH):
        images = {s.id: image for s, image in batch if isinstance(image, np.ndarray)}
        found: dict[str, dict[str, Any]] = {}
        if images:
            output = engine.run(list(images.values()), keep_features=config.cam)
            outcome = bundle.calibration.decide(output.probabilities)
            for index, identity in enumerate(images):
                found[identity] = _row(identity, index, outcome)
            if overlays is not None:
                overlays.write(
                    list(images),
                    [
                        _full_size(s, image, target_px, config.max_pixels)
                        for s, image in batch
                        if s.id in images
                    ],
                    output.features,
                    outcome.decisions.decided,
                    outcome.probabilities,
                )
        origin = {"model": bundle.model_id, "model_sha256": bundle.sha256}
        yield [
            (found.get(s.id) or _error_row(s.id, image)) | origin  # type: ignore[arg-type]
            for s, image in batch
        ]


def _full_size(source: ImageInput, image: np.ndarray | ImageError, target_px: int, max_pixels: int) -> Pixels:
    """The image at its own size: as it was read, or, where it may have been read smaller, how to read it."""
    if isinstance(image, np.ndarray) and min(image.shape[:2]) < 2 * target_px:
        return image
    return partial(read_image, source.path, max_pixels=max_pixels)


def _row(identity: str, index: int, outcome: Outcome) -> dict[str, Any]:
    decisions = outcome.decisions
    fired = int(decisions.fired[index])
    texts = shortest(outcome.probabilities[index])
    return {
        "id": identity,
        "status": "ok",
        "error": "",
        **{f"p_{name}": text for name, text in zip(CLASS_NAMES, texts, strict=True)},
        "argmax": CLASS_NAMES[decisions.argmax[index]],
        "decision": CLASS_NAMES[decisions.decided[index]],
        "threshold_fired": CLASS_NAMES[fired] if fired >= 0 else "",
        "malignant_probability": shortest(outcome.malignant_probability[index : index + 1])[0],
        "triage": str(outcome.triage[index]),
    }


def _error_row(identity: str, error: ImageError) -> dict[str, Any]:
    return dict.fromkeys(COLUMNS, "") | {
        "id": identity,
        "status": "error",
        "error": f"{error.reason}: {error.message}",
    }


def neutral(value: object) -> str:
    """A CSV cell that no spreadsheet takes for a formula."""
    text = str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _result(
    config: PredictConfig, bundle: Bundle, counts: Counter[str], failed: list[str], cam_folder: Path | None
) -> StageResult:
    done = sum(counts.values()) - counts["error"]
    by_class = {name: counts[name] for name in CLASS_NAMES}
    headline = [
        f"{done} images predicted by {bundle.model_id}: "
        + ", ".join(f"{n} {k}" for k, n in by_class.items() if n)
    ]
    artifacts = [str(config.output)] + ([str(cam_folder)] if cam_folder else [])
    return StageResult(
        command="predict",
        headline=headline,
        figures={
            "images": done,
            "failed": len(failed),
            "decisions": by_class,
            "model": bundle.model_id,
            "model_sha256": bundle.sha256,
        },
        artifacts=artifacts,
        warnings=[f"{len(failed)} images could not be read: {name_items(failed)}"] if failed else [],
        exit_code=ExitCode.PARTIAL if failed else ExitCode.OK,
    )
