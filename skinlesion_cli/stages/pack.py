"""Pack a finished model into a folder of its own: the networks, the ensemble and the calibration,
no images.
"""

from __future__ import annotations

from pathlib import Path

from skinlesion_cli.artifacts import exports, output_checks
from skinlesion_cli.artifacts.bundle import Bundle, copy_model
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.files import exclusive
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.settings import StageSettings
from skinlesion_cli.errors import ArtifactError, UsageError
from skinlesion_cli.inference.exporting import graph_of
from skinlesion_cli.progress import Reporter
from skinlesion_cli.result import StageResult


class PackSettings(StageSettings):
    """`with_predictions` packs the validation predictions too: ids,
    lesion ids and labels of all its images.
    """

    workspace: Path
    output: Path
    with_predictions: bool = False


def run(settings: PackSettings, reporter: Reporter) -> StageResult:
    """Copy what prediction needs, unchanged, and read it back as a model.

    The ONNX graphs of its networks, which torch is not needed to run, are made where they are missing. They
    take their weights from the same files as torch does.

    Raises
    ------
    ArtifactError : the model is not finished, or the copy is not the same model.
    UsageError : the output is the workspace itself, or holds another model.
    """
    source, target = Workspace(settings.workspace), Workspace(settings.output)
    if target.root.resolve() == source.root.resolve():
        raise UsageError("--output is the workspace itself", "Name another folder.")
    if target.begun():
        raise UsageError(
            f"there is a model in {settings.output} already", "Name a new folder, or remove it first."
        )
    output_checks.check_new_folder(settings.output)
    packed = Bundle.load(source)
    graphs = [
        (member.name, graph_of(member, source, reporter))
        for member in packed.members
        if exports.graph_beside(member) is None
    ]
    with exclusive(target.root, "pack"):
        total_bytes = copy_model(source, target, packed, with_predictions=settings.with_predictions)
        for name, graph in graphs:
            written = graph.save_for(Checkpoint.load(target.checkpoint(name)))
            total_bytes += sum(path.stat().st_size for path in (written.path, *written.payloads.values()))
    reporter.note("reading it back")
    if Bundle.load(target).sha256 != packed.sha256:
        raise ArtifactError("the copy is not the same model", "Remove it and pack again.")
    return StageResult(
        command="pack",
        headline=[f"{packed.model_id} packed: {total_bytes / 1e6:.1f} MB"],
        figures={
            "model": packed.model_id,
            "model_sha256": packed.sha256,
            "bytes": total_bytes,
            "predictions": settings.with_predictions,
        },
        artifacts=[str(settings.output)],
        next_command=f"skinlesion predict ./images --model {settings.output}",
    )
