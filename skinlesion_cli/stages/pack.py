"""Pack a finished model into a folder of its own: the networks, the ensemble and the calibration,
no images.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import model_validator

from skinlesion_cli.artifacts import exports, hub, model_card, output_checks
from skinlesion_cli.artifacts.bundle import Bundle, copy_model
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.files import atomic_write, exclusive
from skinlesion_cli.artifacts.similar_cases import load_cases
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.settings import StageSettings
from skinlesion_cli.errors import ArtifactError, UsageError
from skinlesion_cli.inference.exporting import graph_of
from skinlesion_cli.progress import Reporter
from skinlesion_cli.result import StageResult


class PackSettings(StageSettings):
    """`with_predictions` packs the validation predictions too: ids,
    lesion ids and labels of all its images. `push` is the name on the hub (`hf://owner/name`) to upload it
    to, `card` the file that becomes its README; None: one is made.
    """

    workspace: Path
    output: Path
    with_predictions: bool = False
    push: str | None = None
    public: bool = False
    card: Path | None = None

    @model_validator(mode="after")
    def _options_go_together(self) -> Self:
        if self.push is None and (self.public or self.card):
            raise UsageError("--public and --card belong to --push")
        return self


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
    if settings.push is not None and hub.HubName.parse(settings.push).revision is not None:
        raise UsageError(f"{settings.push} names a revision; --push makes one")
    card = None if settings.card is None else _read_card(settings.card)
    packed = Bundle.load(source)
    if source.cases.exists():
        # Whoever gets the copy cannot make the table again.
        load_cases(source, packed)
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
    reporter.note("verifying the copy")
    if Bundle.load(target).sha256 != packed.sha256:
        raise ArtifactError("the copy is not the same model", "Remove it and pack again.")
    headline, model = [f"{packed.model_id} packed: {total_bytes / 1e6:.1f} MB"], str(settings.output)
    commit = None
    if settings.push is not None:
        text = card or model_card.render(packed, settings.push)
        atomic_write(settings.output / hub.CARD, text.encode())
        with reporter.task(f"uploading to {settings.push}"):
            commit = hub.push(
                settings.output, settings.push, public=settings.public, message=f"Model {packed.sha256[:12]}"
            )
        model = f"{settings.push}@{commit}"
        headline.append(f"uploaded and verified: {model}")
    return StageResult(
        command="pack",
        headline=headline,
        figures={
            "model": packed.model_id,
            "model_sha256": packed.sha256,
            "bytes": total_bytes,
            "predictions": settings.with_predictions,
            "commit": commit,
        },
        artifacts=[str(settings.output)],
        next_command=f"skinlesion predict ./images --model {model}",
    )


def _read_card(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the card {path} cannot be read: {error}") from None
