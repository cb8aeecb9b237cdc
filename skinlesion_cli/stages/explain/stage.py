"""Explain predictions: maps of the regions that support a class, laid over the images."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated, Any

from pydantic import PositiveInt, SkipValidation

from skinlesion_cli.artifacts import output_checks, own_files
from skinlesion_cli.artifacts.bundle import Bundle, locate_finished, locate_model
from skinlesion_cli.artifacts.class_list import class_list_of
from skinlesion_cli.artifacts.files import atomic_file, exclusive
from skinlesion_cli.artifacts.maps import COLUMNS, MapRecord
from skinlesion_cli.artifacts.prediction_columns import escape_formula
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.config.settings import StageSettings, one_of
from skinlesion_cli.data.reading.folders import summary_lines
from skinlesion_cli.data.reading.inputs import ImageInput, check_named, expand
from skinlesion_cli.data.reading.limits import MAX_PIXELS
from skinlesion_cli.errors import ExitCode, UsageError, name_items, one_line, unknown_name
from skinlesion_cli.explain.cam import combined
from skinlesion_cli.explain.member_maps import member_maps
from skinlesion_cli.explain.methods import DEFAULT, METHODS, is_closed
from skinlesion_cli.explain.overlay import STYLES
from skinlesion_cli.explain.overlay_writer import overlay_writer
from skinlesion_cli.explain.writer import RAW_KINDS, OverlayWriter, Undrawn
from skinlesion_cli.inference.engine import EngineMember
from skinlesion_cli.inference.loading import AUTO, gpu_is_there
from skinlesion_cli.inference.prediction import ERROR
from skinlesion_cli.inference.predictor import Predictor
from skinlesion_cli.inference.runtimes.registry import RUNTIMES
from skinlesion_cli.inference.summary import in_training_warning
from skinlesion_cli.models.devices import NAMES as DEVICES
from skinlesion_cli.parallel import available_cores, in_batches, in_order
from skinlesion_cli.progress import Reporter
from skinlesion_cli.result import StageResult, counted
from skinlesion_cli.taxonomy.class_list import ClassList

TABLE = "maps.csv"
ALL = "all"
_BATCH = 4


class ExplainSettings(StageSettings):
    """What to explain, and how.

    `classes` are class names or `all`; empty: the class decided on. `method` is one of `methods.METHODS`.
    `cam_tta` averages the maps over the views that prediction averages. `style` is one of `overlay.STYLES`,
    `raw` one of `writer.RAW_KINDS` or None, `model` as in
    `artifacts.bundle.locate_model`.
    """

    workspace: Path
    inputs: tuple[str, ...]
    output: Path
    listed: SkipValidation[Iterable[str]] = ()
    classes: tuple[str, ...] = ()
    method: Annotated[str, one_of(METHODS)] = DEFAULT
    cam_tta: bool = False
    style: Annotated[str, one_of(STYLES)] = "side-by-side"
    raw: Annotated[str, one_of(RAW_KINDS)] | None = None
    device: Annotated[str, one_of(DEVICES)] = "auto"
    runtime: Annotated[str, one_of(RUNTIMES, also=(AUTO,))] = AUTO
    max_pixels: PositiveInt = MAX_PIXELS
    model: str | None = None

    def class_indexes(self, known: ClassList) -> list[int] | None:
        """The classes to explain, of those that the model distinguishes; None: those decided on.

        Raises
        ------
        UsageError : it does not distinguish one of them.
        """
        unknown = [name for name in self.classes if name not in (ALL, *known.codes)]
        if unknown:
            raise UsageError(f"--class: {unknown_name(unknown[0], (ALL, *known.codes))}")
        names = known.codes if ALL in self.classes else tuple(dict.fromkeys(self.classes))
        return [known.index[name] for name in names] or None


def run(settings: ExplainSettings, reporter: Reporter) -> StageResult:
    """Write one overlay per image and class, and the table `maps.csv`; a bad file costs its own maps only."""
    if settings.classes:
        # A misspelt name is reported before anything is loaded.
        settings.class_indexes(class_list_of(locate_model(Workspace(settings.workspace), settings.model)))
    check_named(settings.inputs)
    output_checks.check_folder(settings.output, [TABLE], own_files.has_header(COLUMNS), settings.inputs)
    output_checks.check_mirror(settings.output, settings.output / TABLE, settings.inputs)
    bundle = Bundle.load(locate_finished(Workspace(settings.workspace), settings.model))
    classes = settings.class_indexes(bundle.classes)
    # A backward pass needs torch.
    runtime = settings.runtime if is_closed(settings.method) else "torch"
    if settings.runtime not in (AUTO, runtime):
        raise UsageError(
            f"--method {settings.method} needs a backward pass, which --runtime {settings.runtime} cannot do",
            f"Use --runtime torch, or --method {DEFAULT}.",
        )
    reporter.note(f"model: {bundle.model_id} ({bundle.sha256[:12]})")
    predictor = Predictor.of_bundle(
        bundle,
        device=settings.device,
        runtime=runtime,
        max_pixels=settings.max_pixels,
        model=settings.model,
        note=reporter.note,
    )
    writer = overlay_writer(
        settings.output,
        predictor,
        method=settings.method,
        style=settings.style,
        raw=settings.raw,
        classes=classes,
    )
    n_images = 0
    passed_over: Counter[str] = Counter()
    zero: list[str] = []
    failed: list[str] = []
    in_training: list[str] = []
    with (
        exclusive(settings.output, "explain"),
        atomic_file(settings.output / TABLE, "w") as file,
        reporter.task("explaining", unit="images") as task,
    ):
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        batches = in_batches(expand(settings.inputs, settings.listed, passed_over=passed_over), _BATCH)
        explain = _Explainer(settings, predictor, writer)
        for explained in in_order(batches, explain, threads=explain.threads):
            for record in explained.records:
                table.writerow({key: escape_formula(value) for key, value in record.row().items()})
                if record.all_zero:
                    zero.append(f"{record.id} ({record.class_name})")
            failed += explained.failed
            in_training += explained.in_training
            n_images += explained.n_inputs - len(explained.failed)
            task.advance(explained.n_inputs)
        if not n_images and not failed:
            raise UsageError(
                "there are no images in " + (name_items(settings.inputs) or "the list"),
                "Name image files, folders or archives.",
            )
    return _result(settings, bundle, n_images, zero, failed, in_training, passed_over)


@dataclass(frozen=True)
class _Explained:
    """A batch: how many inputs it had, its maps, what failed and why, and ids that were trained on."""

    n_inputs: int
    records: Sequence[MapRecord]
    failed: Sequence[str]
    in_training: Sequence[str]


class _Explainer:
    """Explains batches; it may be called from `threads` threads at once."""

    def __init__(self, settings: ExplainSettings, predictor: Predictor, writer: OverlayWriter) -> None:
        self.settings, self.predictor, self.writer = settings, predictor, writer
        on_gpu = predictor.engine.runtime == "torch" and gpu_is_there(settings.device)
        self.threads = 1 if on_gpu else available_cores()
        self._copies: SimpleQueue[Sequence[EngineMember]] | None = None
        if not is_closed(settings.method) and self.threads > 1:
            self._copies = SimpleQueue()
            for _ in range(self.threads):
                self._copies.put([_copied(member) for member in predictor.engine.members])

    def __call__(self, sources: Sequence[ImageInput]) -> _Explained:
        """Draw their maps."""
        at_once = is_closed(self.settings.method) and not self.settings.cam_tta
        batch = self.predictor.run(sources, keep_layers=at_once)
        failed = [f"{p.id} ({p.error})" for p in batch.predictions if p.status == ERROR]
        if batch.output is None or batch.decided is None or batch.probabilities is None:
            return _Explained(len(sources), [], failed, [])
        seen = [p.id for p in batch.predictions if p.in_training]
        ids = [sources[index].id for index in batch.decoded]
        # Maps are of what was predicted; they are drawn over the image at its own size.
        images = self.predictor.in_full(sources, batch)
        decided, probabilities = batch.decided, batch.probabilities
        if at_once:
            drawn = self.writer.write(ids, images, batch.output.layers, decided, probabilities)
            return _Explained(len(sources), *_drawn(drawn, failed), seen)
        engine = self.predictor.engine
        views = engine.views if self.settings.cam_tta else ("identity",)
        records: list[MapRecord | Undrawn] = []
        for explained in self.writer.explained(decided):
            with self._members() as members:
                method = self.settings.method
                maps = [
                    member_maps(engine.to_input, member, batch.images, explained, method, views)
                    for member in members
                ]
            of_all = combined(maps, self.writer.weights)
            records += self.writer.write_maps(ids, images, of_all, explained, decided, probabilities)
        return _Explained(len(sources), *_drawn(records, failed), seen)

    @contextmanager
    def _members(self) -> Iterator[Sequence[EngineMember]]:
        """The networks; for methods that hook into a network while they work, copies for this call alone."""
        if self._copies is None:
            yield self.predictor.engine.members
            return
        members = self._copies.get()
        try:
            yield members
        finally:
            self._copies.put(members)


def _copied(member: EngineMember) -> EngineMember:
    runtime: Any = copy(member.runtime)
    runtime.network = deepcopy(runtime.network)
    return replace(member, runtime=runtime)


def _drawn(
    records: Sequence[MapRecord | Undrawn], failed: Sequence[str]
) -> tuple[list[MapRecord], list[str]]:
    """The maps that were drawn, and the images that failed, each named once."""
    undrawn = {
        r.id: f"{r.id} ({one_line(f'{r.error.reason}: {r.error.message}')})"
        for r in records
        if isinstance(r, Undrawn)
    }
    return [r for r in records if isinstance(r, MapRecord)], [*failed, *undrawn.values()]


def _result(
    settings: ExplainSettings,
    bundle: Bundle,
    n_images: int,
    zero: list[str],
    failed: list[str],
    in_training: list[str],
    passed_over: Counter[str],
) -> StageResult:
    which = ", ".join(settings.classes) or "the decided class"
    warnings = []
    if failed:
        warnings.append(f"{counted(len(failed), 'image')} could not be read: {name_items(failed)}")
    if zero:
        warnings.append(f"{len(zero)} maps are all zero, so no region supports the class: {name_items(zero)}")
    if in_training:
        warnings.append(in_training_warning(len(in_training), n_images, name_items(in_training)))
    return StageResult(
        command="explain",
        headline=[
            f"{counted(n_images, 'image')} explained with {settings.method} for {which}, "
            f"by {bundle.model_id}",
            *summary_lines(passed_over),
        ],
        figures={
            "images": n_images,
            "failed": len(failed),
            "all_zero": len(zero),
            "in_training": len(in_training),
            "passed_over": dict(passed_over),
            "method": settings.method,
            "views": "as calibrated" if settings.cam_tta else "identity",
            "model": bundle.model_id,
            "model_sha256": bundle.sha256,
        },
        artifacts=[str(settings.output / TABLE), str(settings.output)],
        warnings=warnings,
        exit_code=ExitCode.PARTIAL if failed else ExitCode.OK,
    )
