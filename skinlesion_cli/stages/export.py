"""Export networks to ONNX, and accept them only if they say the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import PositiveInt

from skinlesion_cli.artifacts import exports
from skinlesion_cli.artifacts.bundle import locate_model
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.files import exclusive
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.schema import Fraction
from skinlesion_cli.config.settings import StageSettings, one_of
from skinlesion_cli.data.preprocess import to_input
from skinlesion_cli.data.reading.images import read_image
from skinlesion_cli.decisions.statistics import metrics
from skinlesion_cli.errors import ArtifactError, UsageError, name_items
from skinlesion_cli.progress import Reporter
from skinlesion_cli.result import StageResult, Table
from skinlesion_cli.taxonomy import CLASS_INDEX

PARITY = 1e-5
MAX_BACC_DROP = 0.01
_CALIBRATION_IMAGES = 128
_GENERATED_IMAGES = 16
_BATCH = 16


class ExportSettings(StageSettings):
    """`members` empty: all networks. `images`: validation images to compare on, at most.

    `model` as in `artifacts.bundle.locate_model`. Exports of a model that is not the workspace's own go into
    the user's cache, see `artifacts.exports.folder_of`.
    """

    workspace: Path
    format: Annotated[str, one_of(exports.ALL_FORMATS)] = "onnx"
    members: tuple[str, ...] = ()
    images: PositiveInt = 512
    max_bacc_drop: Fraction = MAX_BACC_DROP
    model: str | None = None


@dataclass(frozen=True)
class _Sample:
    """Validation images to judge on, with labels, and training images to measure ranges on; paths."""

    judged: list[Path]
    labels: np.ndarray
    ranges: list[Path]


def run(settings: ExportSettings, reporter: Reporter) -> StageResult:
    """Export, compare with torch on validation images, and write what passes.

    Raises
    ------
    UsageError : no such network, or the packages for it are missing.
    ArtifactError : an export differs too much from its network; nothing is written then.
    """
    source = locate_model(Workspace(settings.workspace), settings.model)
    cached = source.root.resolve() != settings.workspace.resolve()
    trained = source.trained()
    unknown = [name for name in settings.members if name not in trained]
    if unknown or not trained:
        raise UsageError(
            f"not trained in {'this model' if cached else 'this workspace'}: "
            f"{', '.join(unknown) or 'anything'}",
            "Trained: " + (", ".join(trained) or "none") + ".",
        )
    names = settings.members or tuple(trained)
    if settings.format in exports.EDGE_SUFFIXES:
        return _edge(source, names, settings.format, cached, reporter)
    if settings.format in exports.INEXACT and not _has_images(source):
        raise UsageError(
            f"{settings.format} needs the images that the networks were validated on: what it loses has "
            "to be measured, and "
            + ("this model came without them" if cached else "they are not in this workspace"),
            "Use --format onnx" + ("." if cached else ", or run `skinlesion download` here."),
        )
    rows, written, figures = [], [], {}
    for name in names:
        checkpoint = Checkpoint.load(source.checkpoint(name))
        sample = _sample(source, settings, checkpoint.fold)
        place = exports.folder_of(checkpoint, cached=True) if cached else source.model(name)
        with exclusive(place, "export"), reporter.task(f"exporting {name}", None) as task:
            export = _exported(checkpoint, settings, sample, task.describe)
            artifact = export.save_for(checkpoint, cached=cached)
        compared = export.figures
        figures[name] = dict(compared)
        written.append(str(artifact.path))
        rows.append(
            [
                name,
                f"{len(export.model) / 2**20:.1f}",
                f"{compared['largest_difference']:.1e}",
                f"{compared['same_argmax']:.4f}",
                _shown(compared["bacc_torch"]),
                _shown(compared["bacc_export"]),
                f"{compared['images']} {compared['images_are']}",
            ]
        )
    columns = [
        "network",
        "MiB",
        "largest difference",
        "same argmax",
        "BACC torch",
        "BACC export",
        "compared on",
    ]
    return StageResult(
        command="export",
        headline=[f"exported to {settings.format}: {name_items(names)}"],
        figures={"format": settings.format, "networks": figures},
        tables=[Table("Accepted exports", columns, rows)],
        artifacts=written,
        next_command="skinlesion predict ./images"
        + (f" --model {settings.model}" if settings.model else "")
        + (f" --runtime {settings.format}" if settings.format in exports.INEXACT else ""),
    )


def _edge(
    source: Workspace, names: Sequence[str], kind: str, cached: bool, reporter: Reporter
) -> StageResult:
    from skinlesion_cli.models.edge_export import export_edge
    from skinlesion_cli.models.network import restore_network

    written = []
    for name in names:
        checkpoint = Checkpoint.load(source.checkpoint(name))
        place = exports.folder_of(checkpoint, cached=True) if cached else source.model(name)
        target = place / "edge" / f"{name}{exports.EDGE_SUFFIXES[kind]}"
        with exclusive(place, "export"), reporter.task(f"exporting {name}", None):
            size_px = checkpoint.preprocessing.input_size_px
            export_edge(restore_network(checkpoint), kind, size_px, target)
        written.append(str(target))
    return StageResult(
        command="export",
        headline=[
            f"exported to {kind}: {name_items(names)}, by timmx, which compared them with torch where it can",
            "The files take images resized as in training, in [0, 1], and give logits: the ensemble, "
            "its calibration "
            "and `skinlesion predict` are not in them.",
        ],
        figures={"format": kind, "networks": dict.fromkeys(names)},
        artifacts=written,
    )


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _has_images(workspace: Workspace) -> bool:
    return workspace.manifest.exists() and workspace.split.exists()


def _sample(workspace: Workspace, settings: ExportSettings, fold: int | None) -> _Sample | None:
    if not _has_images(workspace):
        return None
    everything = Manifest.load(workspace.manifest)
    parts = Split.load(workspace.split, everything)
    fitted, held_out = parts.fitted_and_judged(fold)
    validation = _spread(held_out, settings.images)
    rows = everything.rows(validation)
    training = everything.rows(_spread(fitted, _CALIBRATION_IMAGES))
    return _Sample(
        judged=[workspace.images / file for file in rows["file"]],
        labels=np.array([CLASS_INDEX[label] for label in rows["label"]]),
        ranges=[workspace.images / file for file in training["file"]],
    )


def _spread(ids: list[str], most: int) -> list[str]:
    """At most so many ids, evenly spread over the list."""
    return ids if len(ids) <= most else [ids[i] for i in np.linspace(0, len(ids) - 1, most).astype(int)]


def _inputs(paths: list[Path], checkpoint: Checkpoint) -> Iterator[np.ndarray]:
    for start in range(0, len(paths), _BATCH):
        images = [read_image(path) for path in paths[start : start + _BATCH]]
        yield np.stack([to_input(image, checkpoint.preprocessing) for image in images])


def _generated(checkpoint: Checkpoint) -> Iterator[np.ndarray]:
    """Smooth random pictures, where there are no validation images."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (_GENERATED_IMAGES, 8, 8, 3), dtype=np.uint8)
    yield np.stack([to_input(image, checkpoint.preprocessing) for image in coarse])


def _exported(
    checkpoint: Checkpoint, settings: ExportSettings, sample: _Sample | None, tell: Any
) -> exports.Export:
    from skinlesion_cli.inference.runtimes.base import softmax
    from skinlesion_cli.inference.runtimes.exported import exported_runtime
    from skinlesion_cli.inference.runtimes.torch import TorchRuntime
    from skinlesion_cli.models.network import restore_network
    from skinlesion_cli.models.onnx_export import to_int8, to_onnx

    network = restore_network(checkpoint)
    model = to_onnx(network, checkpoint.preprocessing.input_size_px)
    if settings.format == "onnx-int8" and sample is not None:
        tell(f"measuring ranges of {checkpoint.name}")
        model = to_int8(model, _inputs(sample.ranges, checkpoint))
    tell(f"comparing {checkpoint.name} with torch")
    reference, candidate = TorchRuntime(network, singly=True), exported_runtime(model, settings.format)
    batches = _generated(checkpoint) if sample is None else _inputs(sample.judged, checkpoint)
    pairs = [(softmax(reference.logits(batch)), softmax(candidate.logits(batch))) for batch in batches]
    wanted, exported = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    figures: dict[str, Any] = {
        "images": len(wanted),
        "images_are": "generated images" if sample is None else "validation images",
        "largest_difference": float(np.abs(wanted - exported).max()),
        "same_argmax": float((wanted.argmax(axis=1) == exported.argmax(axis=1)).mean()),
        "bacc_torch": None,
        "bacc_export": None,
    }
    if sample is not None:
        figures["bacc_torch"] = metrics.balanced_accuracy(sample.labels, wanted.argmax(axis=1))
        figures["bacc_export"] = metrics.balanced_accuracy(sample.labels, exported.argmax(axis=1))
    _accept(checkpoint.name, settings, figures)
    return exports.Export(settings.format, model, network.classifier.weight.detach().cpu().numpy(), figures)


def _accept(name: str, settings: ExportSettings, figures: dict[str, Any]) -> None:
    if settings.format == "onnx" and figures["largest_difference"] > PARITY:
        raise ArtifactError(
            f"the export of {name} is refused: a probability differs by {figures['largest_difference']:.1e} "
            f"from torch, at most {PARITY:.0e} is accepted",
            "Use --runtime torch, and report the versions of torch and onnxruntime.",
        )
    before, after = figures["bacc_torch"], figures["bacc_export"]
    if before is not None and before - after > settings.max_bacc_drop:
        raise ArtifactError(
            f"the export of {name} is refused: its balanced accuracy is {after:.4f} instead of "
            f"{before:.4f} on "
            f"{figures['images']} validation images, a loss of at most {settings.max_bacc_drop:g} is "
            "accepted",
            "Use --format onnx, or allow more with --max-bacc-drop.",
        )
