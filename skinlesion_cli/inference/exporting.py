"""Making an export of a network, with the comparison that decides whether it is accepted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from skinlesion_cli.artifacts import exports
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.files import exclusive
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.preprocess import decode_target_px, to_input
from skinlesion_cli.data.reading.images import read_image
from skinlesion_cli.decisions.statistics import metrics
from skinlesion_cli.errors import ArtifactError, SkinLesionError, UsageError
from skinlesion_cli.parallel import available_cores, in_order
from skinlesion_cli.progress import Reporter, Task

# Probabilities of an export in float32 differ by no more than this from torch's.
PARITY = 1e-5
MAX_BACC_DROP = 0.01
# Images that a graph is compared on where it is made along the way.
GRAPH_IMAGES = 64
_CALIBRATION_IMAGES = 128
_GENERATED_IMAGES = 16


@dataclass(frozen=True)
class Sample:
    """Validation images to compare on, with labels, and training images to measure ranges on; paths."""

    judged: list[Path]
    labels: np.ndarray
    ranges: list[Path]


def has_images(workspace: Workspace) -> bool:
    """Whether the workspace has the images that its networks were validated on."""
    return workspace.manifest.exists() and workspace.split.exists()


def sample(workspace: Workspace, fold: int | None, most: int) -> Sample | None:
    """Images that the network of this fold was not trained on, at most so many; None if any is missing."""
    if not has_images(workspace):
        return None
    everything = Manifest.load(workspace.manifest)
    parts = Split.load(workspace.split, everything)
    fitted, held_out = parts.fitted_and_judged(fold)
    if not held_out:
        return None
    rows = everything.rows(_spread(held_out, most))
    training = everything.rows(_spread(fitted, _CALIBRATION_IMAGES))
    judged, ranges = ([workspace.images / file for file in table["file"]] for table in (rows, training))
    if not all(path.exists() for path in (*judged, *ranges)):
        # They may have been removed after the training; predictions and networks do not need them.
        return None
    return Sample(judged, np.array([everything.classes.index[label] for label in rows["label"]]), ranges)


def exported(
    checkpoint: Checkpoint,
    kind: str,
    compared_on: Sample | None,
    reporter: Reporter,
    *,
    max_bacc_drop: float = MAX_BACC_DROP,
) -> exports.Export:
    """The network in another format, compared with torch; on generated images where there are no others.

    Raises
    ------
    ArtifactError : the export differs too much from its network.
    UsageError : the packages for it are missing.
    """
    from skinlesion_cli.inference.runtimes.exported import exported_runtime
    from skinlesion_cli.models.network import restore_network

    name = checkpoint.name
    if kind in exports.INEXACT and compared_on is None:
        raise UsageError(f"there are no validation images to compare {name} on", "Use --format onnx.")
    try:
        with reporter.task(f"exporting {name}", None):
            network = restore_network(checkpoint)
            export = _unmeasured(checkpoint, network, kind, compared_on)
        with reporter.task(f"comparing {name} with torch", n_compared(compared_on), unit="images") as task:
            candidate = exported_runtime(export.model, export.format, export.weights)
            columns = network.n_metadata if kind == exports.GRAPH else 0
            figures = compared(checkpoint, network, candidate, compared_on, task, n_metadata=columns)
    except SkinLesionError:
        raise
    except Exception as error:  # the exporter and every runtime have exceptions of their own
        reason = (str(error).strip().splitlines() or [""])[0]
        raise SkinLesionError(
            f"{name} cannot be exported to {kind}: {type(error).__name__}: {reason}", "Use --runtime torch."
        ) from error
    accept(name, kind, figures, max_bacc_drop)
    return replace(export, figures=figures)


def graph_of(
    checkpoint: Checkpoint, workspace: Workspace, reporter: Reporter, *, most_images: int = GRAPH_IMAGES
) -> exports.Export:
    """The ONNX graph of a network of this workspace: the present one, or one that is made now.

    Raises
    ------
    SkinLesionError : it cannot be made; see `exported`.
    """
    if exports.is_there(checkpoint, exports.GRAPH):
        present = exports.Export.load_for(checkpoint, exports.GRAPH)
        if present.classifier_name:
            return present
    return exported(checkpoint, exports.GRAPH, sample(workspace, checkpoint.fold, most_images), reporter)


def write_graphs(workspace: Workspace, names: Iterable[str], reporter: Reporter) -> dict[str, str]:
    """Write the ONNX graphs that networks of this workspace lack; returns why it failed, by network."""
    failed = {}
    for name in names:
        if not workspace.checkpoint(name).exists():
            continue
        try:
            checkpoint = Checkpoint.load(workspace.checkpoint(name))
            if exports.is_there(checkpoint, exports.GRAPH):
                continue
            with exclusive(workspace.model(name), "export"):
                graph_of(checkpoint, workspace, reporter).save_for(checkpoint)
        except SkinLesionError as error:
            failed[name] = error.message
    return failed


def _unmeasured(
    checkpoint: Checkpoint, network: Any, kind: str, compared_on: Sample | None
) -> exports.Export:
    from skinlesion_cli.models.onnx_export import to_graph, to_int8, to_onnx

    size_px = checkpoint.preprocessing.input_size_px
    if kind == exports.GRAPH:
        graph, tensors = to_graph(network, size_px, checkpoint.weights, _weights_file(checkpoint))
        return exports.Export.of_graph(checkpoint, graph, tensors, network.classifier_name, {})
    model = to_onnx(network, size_px)
    if kind == "onnx-int8" and compared_on is not None:
        model = to_int8(model, (_input(path, checkpoint)[None] for path in compared_on.ranges))
    return exports.Export(kind, model, network.classifier.weight.detach().cpu().numpy(), {})


def _weights_file(checkpoint: Checkpoint) -> str:
    if checkpoint.artifact is None:
        raise ValueError("the checkpoint must be written before its export")
    return checkpoint.artifact.payloads["weights"].name


class GivesLogits(Protocol):
    """What is compared with torch."""

    def logits(self, images: np.ndarray, metadata: np.ndarray | None = None) -> np.ndarray:
        """Logits, float32 (n, 7), of pixels uint8 (n, s, s, 3)."""


def n_compared(compared_on: Sample | None) -> int:
    """Images that `compared` compares on."""
    return _GENERATED_IMAGES if compared_on is None else len(compared_on.judged)


def compared(
    checkpoint: Checkpoint,
    network: Any,
    candidate: GivesLogits,
    compared_on: Sample | None,
    task: Task,
    *,
    n_metadata: int = 0,
) -> dict[str, Any]:
    """What the candidate's probabilities differ by from torch's; advances `task` by one per image.

    With `n_metadata` columns every other image is compared with metadata, which are made up.
    """
    from skinlesion_cli.inference.runtimes.base import softmax
    from skinlesion_cli.inference.runtimes.torch import TorchRuntime, one_thread_per_call

    reference = TorchRuntime(network, singly=True)

    # What an inexact export costs is that of images alone.
    rows: list[tuple[np.ndarray, ...]] = [()]
    if n_metadata:
        rows.append((np.random.default_rng(0).random((1, n_metadata), dtype=np.float32),))

    def both(
        job: tuple[Callable[[], np.ndarray], tuple[np.ndarray, ...]],
    ) -> tuple[np.ndarray, np.ndarray]:
        read, metadata = job
        pixels = np.stack([read()])
        return (
            softmax(reference.logits(pixels, *metadata))[0],
            softmax(candidate.logits(pixels, *metadata))[0],
        )

    pairs = []
    jobs = zip(_readers(checkpoint, compared_on), cycle(rows))
    with one_thread_per_call():
        for pair in in_order(jobs, both, threads=available_cores()):
            pairs.append(pair)
            task.advance(1)
    wanted, found = (np.stack(parts) for parts in zip(*pairs, strict=True))
    figures: dict[str, Any] = {
        "images": len(wanted),
        "images_are": "generated images" if compared_on is None else "validation images",
        "largest_difference": float(np.abs(wanted - found).max()),
        "same_argmax": float((wanted.argmax(axis=1) == found.argmax(axis=1)).mean()),
        "bacc_torch": None,
        "bacc_export": None,
    }
    if compared_on is not None:
        figures["bacc_torch"] = metrics.balanced_accuracy(compared_on.labels, wanted.argmax(axis=1))
        figures["bacc_export"] = metrics.balanced_accuracy(compared_on.labels, found.argmax(axis=1))
    return figures


def _readers(checkpoint: Checkpoint, compared_on: Sample | None) -> Iterator[Callable[[], np.ndarray]]:
    """Functions that make the pixels to compare on: read side by side, and smooth random ones if there are
    no images.
    """
    if compared_on is not None:
        for path in compared_on.judged:
            yield lambda path=path: _input(path, checkpoint)  # type: ignore[misc]
        return
    generator = np.random.default_rng(0)
    for coarse in generator.integers(0, 256, (_GENERATED_IMAGES, 8, 8, 3), dtype=np.uint8):
        yield lambda coarse=coarse: to_input(coarse, checkpoint.preprocessing)  # type: ignore[misc]


def _input(path: Path, checkpoint: Checkpoint) -> np.ndarray:
    image = read_image(path, target_px=decode_target_px(checkpoint.preprocessing))
    return to_input(image, checkpoint.preprocessing)


def accept(
    name: str, kind: str, figures: dict[str, Any], max_bacc_drop: float, *, parity: float = PARITY
) -> None:
    """Check that an export gives what its network gives.

    Raises
    ------
    ArtifactError : a probability in float32 differs by more than `parity`, or the balanced accuracy of an
        export in fewer bits is lower by more than `max_bacc_drop`.
    """
    if kind not in exports.INEXACT and not figures["largest_difference"] <= parity:
        raise ArtifactError(
            f"the export of {name} is refused: a probability differs by {figures['largest_difference']:.1e} "
            f"from torch, at most {parity:.0e} is accepted",
            f"Use --runtime torch, and report the versions of torch and of what runs {kind}.",
        )
    before, after = figures["bacc_torch"], figures["bacc_export"]
    if before is not None and before - after > max_bacc_drop:
        raise ArtifactError(
            f"the export of {name} is refused: its balanced accuracy is {after:.4f} instead of "
            f"{before:.4f} on "
            f"{figures['images']} validation images, a loss of at most {max_bacc_drop:g} is accepted",
            "Use --format onnx, or allow more with --max-bacc-drop.",
        )


def _spread(ids: list[str], most: int) -> list[str]:
    """At most so many ids, evenly spread over the list."""
    return ids if len(ids) <= most else [ids[i] for i in np.linspace(0, len(ids) - 1, most).astype(int)]
