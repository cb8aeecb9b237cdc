"""The settings of `predict`, and which of them go together."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import IO, Annotated, Self

from pydantic import Field, PositiveInt, SkipValidation, model_validator

from skinlesion_cli.artifacts.prediction_columns import FORMATS
from skinlesion_cli.config.settings import StageSettings, one_of
from skinlesion_cli.data.reading.limits import MAX_PIXELS
from skinlesion_cli.errors import UsageError
from skinlesion_cli.explain.overlay import STYLES as CAM_STYLES
from skinlesion_cli.inference.loading import TTA_MODES
from skinlesion_cli.inference.runtimes.registry import RUNTIMES
from skinlesion_cli.models.devices import NAMES as DEVICES
from skinlesion_cli.stages.predict.backends import BACKENDS

# As `output`: JSON lines on stdout.
STDOUT = Path("-")


class PredictSettings(StageSettings):
    """What to predict, with what, to where.

    `inputs` as in `data.reading.inputs.expand`; `listed` more names, such as those on stdin. `output` `-`
    writes JSON lines to `stream`. `shard` is (i, n): every n-th batch from the i-th. `batch` images go to a
    GPU together, and are the unit in which work is distributed and resumed; None: 2 on a CPU, 32 on a GPU.
    `model` as in `artifacts.bundle.locate_model`. `similar` labelled lesions are named for each image;
    0: none are looked for. `group`: a table of images and lesions, or `folder`.
    `patients`: a table of age, sex and body site.
    `report_pdf`: where to print the page to.
    """

    workspace: Path
    inputs: tuple[str, ...]
    output: Path
    listed: SkipValidation[Iterable[str]] = ()
    cam: bool = False
    cam_style: Annotated[str, one_of(CAM_STYLES)] = CAM_STYLES[0]
    report: bool = False
    device: Annotated[str, one_of(DEVICES)] = "auto"
    runtime: Annotated[str, one_of(RUNTIMES, also=("auto",))] = "auto"
    tta: Annotated[str, one_of(TTA_MODES)] | None = None
    force: bool = False
    max_pixels: PositiveInt = MAX_PIXELS
    format: Annotated[str, one_of(FORMATS)] | None = None
    follow_links: bool = False
    resume: bool = False
    overwrite: bool = False
    batch: Annotated[int, Field(ge=1, le=1024)] | None = None
    backend: Annotated[str, one_of(BACKENDS)] = "threads"
    workers: PositiveInt | None = None
    address: str | None = None
    shard: tuple[PositiveInt, PositiveInt] | None = None
    stream: SkipValidation[IO[bytes] | None] = None
    model: str | None = None
    similar: Annotated[int, Field(ge=0, le=20)] = 0
    group: str | None = None
    patients: Path | None = None
    report_pdf: Path | None = None

    @model_validator(mode="after")
    def _options_go_together(self) -> Self:
        if self.output == STDOUT:
            if self.resume or self.format not in (None, "jsonl") or self.shard:
                raise UsageError(
                    "--output - streams JSON lines; --resume, --shard and other formats need a file",
                    "Example: --output results.csv --resume",
                )
            if self.cam or self.report or self.group or self.report_pdf:
                raise UsageError(
                    "--cam, --report, --report-pdf and --group write beside --output: it must be a file"
                )
            if self.stream is None:
                raise UsageError("--output - needs a stream to write to")
        if self.shard and self.shard[0] > self.shard[1]:
            raise UsageError(f"there is no shard {self.shard[0]} of {self.shard[1]}")
        if (self.report or self.report_pdf or self.group) and self.shard:
            raise UsageError(
                "--report, --report-pdf and --group need the whole batch; --shard predicts a part of it",
                "Predict all of it, or merge the shards and read the table.",
            )
        if self.report_pdf and not self.report:
            raise UsageError("report_pdf prints the page of report: ask for both")
        if self.resume and self.overwrite:
            raise UsageError("--resume and --overwrite exclude each other")
        if self.address and self.backend not in ("dask", "ray"):
            raise UsageError("--address belongs to --backend dask or ray")
        return self
