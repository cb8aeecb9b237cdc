"""What overlays cost: predict, predict with --cam, and the same with pytorch-grad-cam for each image.

    OMP_NUM_THREADS=1 python examples/benchmarks/cam_cost.py --images FOLDER --count 500

All run in this process on one thread, in turn, chunk by chunk, so that whatever else the machine does falls
on all of them alike. CPU time is what is compared; wall time is given beside it. Every overlay is written to
disk. Without `--library`, pytorch-grad-cam is left out.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from skinlesion_cli.artifacts.bundle import Bundle, locate_model
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.reading.inputs import expand, load
from skinlesion_cli.explain.cam import combined
from skinlesion_cli.explain.methods import library_maps
from skinlesion_cli.explain.overlay import STYLES
from skinlesion_cli.explain.overlay_writer import overlay_writer
from skinlesion_cli.inference.predictor import Predictor
from skinlesion_cli.parallel import in_batches
from skinlesion_cli.stages.predict.worker import Plan, Worker
from skinlesion_cli.taxonomy import shipped

ISIC2018 = shipped("isic2018")


def library_way(bundle: Bundle, plain: Worker, folder: Path) -> Callable[[list], object]:
    """Predicts and explains a chunk with pytorch-grad-cam, one image after the other."""
    predictor = Predictor.of_bundle(bundle, device="cpu", runtime="torch")
    engine, writer = predictor.engine, overlay_writer(folder, predictor)

    def by_library(chunk: list) -> None:
        for (_number, source), prediction in zip(chunk, plain.predict(chunk), strict=True):
            image = load(source).pixels
            classes = np.array([ISIC2018.index[prediction.decision]])
            maps = [
                library_maps(
                    m.runtime.network, engine.to_input(image, m.preprocessing)[None], classes, "gradcam"
                )
                for m in engine.members
            ]
            p = np.array([[prediction.probabilities[name] for name in ISIC2018.codes]])
            writer.write_maps([source.id], [image], combined(maps, writer.weights), classes, classes, p)

    return by_library


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="builtin", help="workspace or packed model (default builtin)")
    parser.add_argument("--images", required=True, help="folder of images")
    parser.add_argument("--count", type=int, default=500, help="how many images (default 500)")
    parser.add_argument("--runtime", default="onnx", help="as for `skinlesion predict` (default onnx)")
    parser.add_argument("--style", action="append", choices=STYLES, help="repeatable (default: all)")
    parser.add_argument("--library", action="store_true", help="also pytorch-grad-cam, image by image")
    options = parser.parse_args()
    workspace = locate_model(Workspace(Path("none")), options.model)
    bundle = Bundle.load(workspace)
    cpu: dict[str, float] = defaultdict(float)
    wall: dict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(workspace.root, bundle.sha256, options.runtime)
        plain = Worker(plan, bundle)
        ways: dict[str, Callable[[list], object]] = {"predict": plain.predict}
        for style in options.style or STYLES:
            with_maps = replace(plan, overlays=Path(folder) / style, cam_style=style)
            ways[f"predict --cam, {style}"] = Worker(with_maps, bundle).predict
        if options.library:
            ways["pytorch-grad-cam per image"] = library_way(bundle, plain, Path(folder) / "library")
        chunks = list(in_batches(islice(enumerate(expand([options.images]), 1), options.count), 8))
        for way in ways.values():
            way(chunks[0])  # warms up
        for chunk in chunks:
            for name, way in ways.items():
                began = time.process_time(), time.perf_counter()
                way(chunk)
                cpu[name] += time.process_time() - began[0]
                wall[name] += time.perf_counter() - began[1]
    count = sum(map(len, chunks))
    print(
        f"{count} images, {bundle.model_id}, {len(bundle.calibration.views)} views, runtime {options.runtime}"
    )
    print(f"{'':28}{'CPU ms/image':>14}{'against predict':>18}{'wall ms/image':>16}")
    for name in ways:
        ratio = cpu[name] / cpu["predict"] - 1
        print(
            f"{name:28}{1000 * cpu[name] / count:14.1f}{100 * ratio:+15.1f} % "
            f"{1000 * wall[name] / count:15.1f}"
        )


if __name__ == "__main__":
    main()
