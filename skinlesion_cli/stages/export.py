"""Export networks to other formats; an export is accepted only if it gives the same results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import PositiveInt

from skinlesion_cli.artifacts import exports
from skinlesion_cli.artifacts.bundle import locate_model
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.edge_exports import SUFFIXES
from skinlesion_cli.artifacts.files import exclusive
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.schema import Fraction
from skinlesion_cli.config.settings import StageSettings, one_of
from skinlesion_cli.errors import UsageError, name_items
from skinlesion_cli.inference.edge_exporting import write_edge
from skinlesion_cli.inference.exporting import MAX_BACC_DROP, exported, has_images, sample
from skinlesion_cli.inference.runtimes.edge import runs_here
from skinlesion_cli.progress import Reporter
from skinlesion_cli.result import StageResult, Table


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
    if not trained:
        raise UsageError(f"there is no trained network in {source.root}", source.next_step() or "")
    if unknown:
        raise UsageError(
            f"not trained in {'this model' if cached else 'this workspace'}: {', '.join(unknown)}",
            f"Trained: {', '.join(trained)}.",
        )
    names = settings.members or tuple(trained)
    if settings.format in SUFFIXES:
        return _edge(source, names, settings, cached, reporter)
    if settings.format in exports.INEXACT and not has_images(source):
        raise UsageError(
            f"{settings.format} needs the images that the networks were validated on: what it loses has "
            "to be measured, and "
            + ("this model came without them" if cached else "they are not in this workspace"),
            "Use --format onnx" + ("." if cached else ", or run `skinlesion download` here."),
        )
    rows, written, figures = [], [], {}
    has_labels = has_images(source)
    for name in names:
        checkpoint = Checkpoint.load(source.checkpoint(name))
        compared_on = sample(source, checkpoint.fold, settings.images)
        place = exports.folder_of(checkpoint, cached=True) if cached else source.model(name)
        with exclusive(place, "export"):
            export = exported(
                checkpoint, settings.format, compared_on, reporter, max_bacc_drop=settings.max_bacc_drop
            )
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
                *([_shown(compared["bacc_torch"]), _shown(compared["bacc_export"])] if has_labels else []),
                f"{compared['images']} {compared['images_are']}",
            ]
        )
    measured = ["largest difference", "same argmax", *(["BACC torch", "BACC export"] if has_labels else [])]
    columns = ["network", "MiB", *measured, "compared on"]
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
    source: Workspace, names: Sequence[str], settings: ExportSettings, cached: bool, reporter: Reporter
) -> StageResult:
    kind = settings.format
    rows, written, figures = [], [], {}
    for name in names:
        checkpoint = Checkpoint.load(source.checkpoint(name))
        place = exports.folder_of(checkpoint, cached=True) if cached else source.model(name)
        with exclusive(place, "export"):
            compared_on = sample(source, checkpoint.fold, settings.images)
            made = write_edge(checkpoint, kind, place / "edge", compared_on, reporter)
        written += [str(made.model), str(made.card)]
        figures[name] = {
            "size_bytes": made.size_bytes,
            "conversion_s": round(made.conversion_s, 3),
            **made.figures,
        }
        rows.append([name, f"{made.size_bytes / 2**20:.1f}", f"{made.conversion_s:.1f}"])
        if made.figures:
            rows[-1] += [
                f"{made.figures['largest_difference']:.1e}",
                f"{made.figures['same_argmax']:.4f}",
                f"{made.figures['images']} {made.figures['images_are']}",
            ]
    compared = ["largest difference", "same argmax", "compared on"] if runs_here(kind) else []
    return StageResult(
        command="export",
        headline=[
            f"exported to {kind}: {name_items(names)}"
            + ("" if compared else "; not compared with torch, because it does not run on this system"),
            "Each file takes one image as its .json says and gives logits: the ensemble, its calibration and "
            "its decisions are not in it.",
        ],
        figures={"format": kind, "networks": figures},
        tables=[Table("Exports for small devices", ["network", "MiB", "conversion s", *compared], rows)],
        artifacts=written,
    )


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
