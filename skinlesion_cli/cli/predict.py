"""`skinlesion predict`"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from skinlesion_cli.cli import options
from skinlesion_cli.cli.choices import one_of
from skinlesion_cli.cli.root import StageCall, command
from skinlesion_cli.cli.terminal import stdout_for_rows

EXAMPLE = """
skinlesion predict ./images --cam
skinlesion predict ./images --report --model builtin --similar 3
skinlesion predict a.jpg scans.zip @more.txt --output results.parquet --resume
find . -name '*.jpg' -print0 | skinlesion predict - --output - | jq .decision
skinlesion predict /data --shard 3/16 --output part-3.csv
skinlesion predict ./inbox --watch --report --output results.csv
"""
INPUTS = (
    "Image files, folders (searched recursively), quoted patterns, zip archives, DICOM (extra dicom), "
    "@LIST files; - reads a list from stdin. Names in lists end with a newline or NUL."
)
OUTPUT = "Table to write: .csv, .jsonl or .parquet; - streams JSON lines to stdout."
FORMAT = "Format of the table: {names}. Default: from the suffix of --output."
RESUME = "Continue an unfinished run; its finished rows are kept."
OVERWRITE = "Discard the rows of an unfinished run."
TTA = (
    "Test-time augmentation: {names}. flips averages 4 views, d4 8, zoom 8 (half of them of the centre "
    "only), crops 16 at four scales, published 10 random rounds; adaptive takes as many as an image "
    "needs. Default: the mode that was calibrated."
)
FORCE = "Accept a --tta mode that was not calibrated; every row is marked."
BACKEND = (
    "How to distribute the work: {names}. local starts processes; dask and ray need the extra of the "
    "same name."
)
ADDRESS = "Dask scheduler (tcp://HOST:8786), or Ray cluster (HOST:6379; default: start Ray on this machine)."
WORKERS = "Number of threads or processes. Default: the number of available cores."
SHARD = "i/N: predict the i-th of N shares; join them with `skinlesion merge`."
BATCH = (
    "Images per batch, the unit in which work is distributed, written and resumed. Default: 2, or 32 on a "
    "GPU."
)
REPORT = "Also write a page for reviewing the results in a browser, offline; implies --cam."
PDF = "Also print the page of --report to this PDF file; implies --report and needs Chromium or Chrome."
LINKS = "Follow symbolic links inside folders; a link that leads back into its own folder gets an error row."
SIMILAR = (
    "Name this many of the labelled lesions most like each image, among those that the network was not "
    "trained on, and count the labels of the nearest 20; 0 turns it off. The bundled model knows their "
    "labels only, not their ids."
)
GROUP = (
    "Group photographs of the same lesion, by a CSV with the columns image and lesion_id, or by `folder` "
    "(each folder is a lesion). Also writes one verdict per lesion: mean probabilities, and the worst triage "
    "level and all alarms of its photographs, since a sign that shows once counts. Guarantees for "
    "refer and routine hold for photographs, not for lesions."
)
PATIENTS = (
    "Age, sex and body site, for networks that were trained with --metadata: a CSV with a column image, "
    "lesion_id or patient_id, and any of age, sex, site; cells may be empty. Values that it lacks are "
    "taken from DICOM files."
)
WATCH = (
    "Keep watching one folder, and predict every new image as soon as it is complete: the table grows, the "
    "page of --report is rewritten, and the same command continues after a restart. SIGTERM or Ctrl-C ends "
    "it."
)
INTERVAL = "Seconds between two checks of --watch. A file is complete once two checks find it unchanged."
PIXELS = "Refuse images with more pixels than this."


@command("predict", example=EXAMPLE, section="Pipeline", streams_rows=True)
def predict(
    inputs: Annotated[list[str], typer.Argument(help=INPUTS)],
    output: Annotated[Path, typer.Option("--output", "-o", help=OUTPUT)] = Path("predictions.csv"),
    format: Annotated[
        str | None, one_of("--format", help=FORMAT, known="artifacts.prediction_columns.FORMATS")
    ] = None,
    cam: Annotated[bool, typer.Option("--cam", help="Also write Grad-CAM overlays as PNG.")] = False,
    report: Annotated[bool, typer.Option("--report", help=REPORT)] = False,
    report_pdf: Annotated[Path | None, typer.Option("--report-pdf", help=PDF)] = None,
    cam_style: options.CamStyleOption = "overlay",
    resume: Annotated[bool, typer.Option("--resume", help=RESUME)] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE)] = False,
    tta: Annotated[
        str | None, one_of("--tta", help=TTA, known="inference.tta.MODES", also=("adaptive",))
    ] = None,
    force: Annotated[bool, typer.Option("--force", help=FORCE)] = False,
    runtime: options.RuntimeOption = "auto",
    device: options.DeviceOption = "auto",
    backend: Annotated[
        str, one_of("--backend", help=BACKEND, known="stages.predict.backends.BACKENDS")
    ] = "threads",
    workers: Annotated[int | None, typer.Option("--workers", min=1, help=WORKERS)] = None,
    address: Annotated[str | None, typer.Option("--address", help=ADDRESS)] = None,
    shard: Annotated[str | None, typer.Option("--shard", help=SHARD)] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, max=1024, help=BATCH)] = None,
    max_pixels: Annotated[int, typer.Option("--max-pixels", min=1, help=PIXELS)] = 64_000_000,
    follow_links: Annotated[bool, typer.Option("--follow-links", help=LINKS)] = False,
    similar: Annotated[int, typer.Option("--similar", min=0, max=20, help=SIMILAR)] = 0,
    group: Annotated[str | None, typer.Option("--group", help=GROUP)] = None,
    patients: Annotated[Path | None, typer.Option("--patients", help=PATIENTS)] = None,
    watch: Annotated[bool, typer.Option("--watch", help=WATCH)] = False,
    interval: Annotated[float, typer.Option("--interval", min=0.1, max=3600.0, help=INTERVAL)] = 5.0,
    model: options.ModelOption = None,
    *,
    workspace: Path,
) -> StageCall[Any]:
    """Predict images with the calibrated ensemble: one row per image, written as soon as it is ready."""
    from skinlesion_cli.stages.predict import stage
    from skinlesion_cli.stages.predict.settings import STDOUT, PredictSettings

    named, listed = options.named_and_listed(inputs)
    settings = PredictSettings(
        workspace=workspace,
        inputs=named,
        listed=listed,
        output=output,
        format=format,
        cam=cam,
        cam_style=cam_style,
        report=report or report_pdf is not None,
        report_pdf=report_pdf,
        resume=resume,
        overwrite=overwrite,
        tta=tta,
        force=force,
        runtime=runtime,
        device=device,
        backend=backend,
        workers=workers,
        address=address,
        shard=options.share(shard),
        batch=batch,
        max_pixels=max_pixels,
        follow_links=follow_links,
        model=model,
        similar=similar,
        group=group,
        patients=patients,
        stream=stdout_for_rows() if output == STDOUT else None,
    )
    if watch:
        from skinlesion_cli.stages.predict import watch as watching

        return StageCall(partial(watching.run, interval_s=interval), settings)
    return StageCall(stage.run, settings)
