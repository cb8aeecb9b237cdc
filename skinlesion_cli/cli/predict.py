"""`skinlesion predict`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from skinlesion_cli.cli import options
from skinlesion_cli.cli.choices import one_of
from skinlesion_cli.cli.root import StageCall, command

EXAMPLE = """
skinlesion predict ./images --cam
skinlesion predict ./images --report --model builtin
skinlesion predict a.jpg scans.zip @more.txt --output results.parquet --resume
find . -name '*.jpg' -print0 | skinlesion predict - --output - | jq .decision
skinlesion predict /data --shard 3/16 --output part-3.csv
"""
INPUTS = (
    "Image files, folders (with all below), quoted patterns, zip archives, DICOM (extra dicom), @LIST files; - reads "
    "a list from stdin. Lists end names by newlines or NUL."
)
OUTPUT = "Table to write: .csv, .jsonl or .parquet; - streams JSON lines to stdout."
FORMAT = "csv, jsonl or parquet; default: by the suffix."
RESUME = "Go on with the unfinished rows of an earlier run."
OVERWRITE = "Drop the unfinished rows of an earlier run."
TTA = (
    "none, flips (4 views), d4 (8), zoom (8, half of them of the middle alone), published (10 random rounds) or adaptive "
    "(as many as it takes); default: the mode that was calibrated."
)
FORCE = "Accept a --tta that was not calibrated; every row says so."
RUNTIME = (
    "auto, torch, onnx, onnx-int8 or openvino-bf16; auto takes onnx where it is exported and there is no GPU."
)
BACKEND = "threads, local (processes), dask or ray (extras dask, ray)."
ADDRESS = "Scheduler of dask (tcp://HOST:8786) or cluster of ray (HOST:6379; without, it starts one here)."
WORKERS = "Threads or processes; default: the cores that are there."
SHARD = "i/N: predict the i-th of N shares; join them with `skinlesion merge`."
BATCH = "Images in a batch: the unit that is shared out, written and resumed; default: 2, on a GPU 32."
REPORT = "Also write a page to review the batch in a browser, offline; implies --cam."
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
    cam_style: options.CamStyleOption = "overlay",
    resume: Annotated[bool, typer.Option("--resume", help=RESUME)] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE)] = False,
    tta: Annotated[str | None, one_of("--tta", help=TTA, known="inference.loading.TTA_MODES")] = None,
    force: Annotated[bool, typer.Option("--force", help=FORCE)] = False,
    runtime: Annotated[
        str, one_of("--runtime", help=RUNTIME, known="inference.runtimes.registry.RUNTIMES", also=("auto",))
    ] = "auto",
    device: options.DeviceOption = "auto",
    backend: Annotated[
        str, one_of("--backend", help=BACKEND, known="stages.predict.backends.BACKENDS")
    ] = "threads",
    workers: Annotated[int | None, typer.Option("--workers", min=1, help=WORKERS)] = None,
    address: Annotated[str | None, typer.Option("--address", help=ADDRESS)] = None,
    shard: Annotated[str | None, typer.Option("--shard", help=SHARD)] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, max=1024, help=BATCH)] = None,
    max_pixels: Annotated[int, typer.Option("--max-pixels", min=1, help=PIXELS)] = 64_000_000,
    model: options.ModelOption = None,
    *,
    workspace: Path,
) -> StageCall[Any]:
    """Predict images with the calibrated ensemble: one row an image, on disk as it is made."""
    from skinlesion_cli.stages.predict import stage

    named, listed = options.named_and_listed(inputs)
    settings = stage.PredictConfig(
        workspace=workspace,
        inputs=named,
        listed=listed,
        output=output,
        format=format,
        cam=cam,
        cam_style=cam_style,
        report=report,
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
        model=model,
        stream=sys.stdout.buffer,
    )
    return StageCall(stage.run, settings)
