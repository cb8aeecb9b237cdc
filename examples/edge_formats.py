"""One network in every format for small devices that is installed here, compared with torch on real images.

    python examples/edge_formats.py /data/isic2018/ISIC2018_Task3_Training_Input --images 200

Takes one network of a model (`--model`, default the bundled one) and images spread evenly over the folder,
converts the network, runs it in the interpreter of each format with one thread, and prints a table: size on
disk, time of the conversion, median time per image, share of images that get the class that torch gives them,
and the largest difference of a probability. A format whose packages are missing, or which does not run on
this system, is named below the table. litert-torch may need an environment of its own, so `--format` picks
formats.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from skinlesion_cli.artifacts.bundle import locate_model
from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.edge_exports import SUFFIXES
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.preprocess import decode_target_px, to_input
from skinlesion_cli.data.reading.images import read_image
from skinlesion_cli.errors import SkinLesionError
from skinlesion_cli.inference.edge_exporting import write_edge
from skinlesion_cli.inference.exporting import GivesLogits
from skinlesion_cli.inference.runtimes.base import softmax
from skinlesion_cli.inference.runtimes.edge import EdgeRuntime, runs_here
from skinlesion_cli.inference.runtimes.torch import TorchRuntime, one_thread_per_call
from skinlesion_cli.models.network import restore_network
from skinlesion_cli.progress import SilentReporter

COLUMNS = ("format", "MiB", "conversion, s", "ms per image", "same class", "largest difference")


def inputs(folder: Path, count: int, checkpoint: Checkpoint) -> list[np.ndarray]:
    """At most so many images of the folder as the network takes them, uint8 (s, s, 3)."""
    files = sorted(folder.rglob("*.jpg"))
    if not files:
        raise SystemExit(f"no .jpg in {folder}")
    chosen = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, count).astype(int))]
    stated = checkpoint.preprocessing
    return [to_input(read_image(file, target_px=decode_target_px(stated)), stated) for file in chosen]


def timed(runtime: GivesLogits, images: list[np.ndarray]) -> tuple[np.ndarray, float]:
    """Probabilities, float32 (n, 7), and the median time per image in ms; the first image warms up."""
    runtime.logits(images[0][None])
    logits, times_s = [], []
    for image in images:
        started_s = time.perf_counter()
        logits.append(runtime.logits(image[None])[0])
        times_s.append(time.perf_counter() - started_s)
    return softmax(np.stack(logits)), 1000 * statistics.median(times_s)


def row(checkpoint: Checkpoint, kind: str, images: list[np.ndarray], wanted: np.ndarray) -> list[str]:
    """The line of one format; figures that could not be measured here are missing from it."""
    with tempfile.TemporaryDirectory() as folder:
        made = write_edge(checkpoint, kind, Path(folder), None, SilentReporter())
        cells = [kind, f"{made.size_bytes / 2**20:.1f}", f"{made.conversion_s:.1f}"]
        if not runs_here(kind):
            return [*cells, "-", "-", "-"]
        values, ms = timed(EdgeRuntime(made.model, kind), images)
    same = (values.argmax(axis=1) == wanted.argmax(axis=1)).mean()
    return [*cells, f"{ms:.1f}", f"{same:.3f}", f"{np.abs(values - wanted).max():.1e}"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--format", action="append", choices=sorted(SUFFIXES))
    options = parser.parse_args()
    source = locate_model(Workspace(Path("skinlesion-workspace")), options.model)
    checkpoint = Checkpoint.load(source.checkpoint(source.trained()[0]))
    images = inputs(options.folder, options.images, checkpoint)
    lines, notes = [COLUMNS, ("---",) * len(COLUMNS)], []
    with one_thread_per_call():
        wanted, ms = timed(TorchRuntime(restore_network(checkpoint), singly=True), images)
        lines.append(("torch", "-", "-", f"{ms:.1f}", "1.000", "0"))
        for kind in options.format or SUFFIXES:
            try:
                lines.append(tuple(row(checkpoint, kind, images, wanted)))
            except SkinLesionError as error:
                notes.append(f"{kind}: {error.message}. {error.hint}")
            else:
                if not runs_here(kind):
                    notes.append(f"{kind}: converted, but it does not run on this system")
    print(f"{checkpoint.name} at {checkpoint.preprocessing.input_size_px} px, {len(images)} images\n")
    print("\n".join("| " + " | ".join(line) + " |" for line in lines))
    print("\n".join(["", *notes] if notes else []))


if __name__ == "__main__":
    main()
