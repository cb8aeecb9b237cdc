"""Images per second against the published way of predicting, with its three networks and the same images.

The published way: torch eager, NCHW, a DataLoader, 10 rounds of random turns and flips, softmax averaged over
rounds and networks. It may use both cores for every operation, decodes every image once only, and does not
count the time to load the networks. Ours: onnxruntime (or another `--runtime`), all 8 views of every network,
or as many forward passes (a network at a view) as the stopping rule of a trained ensemble of three asked for.
Weights are random, which changes no time but says nothing of when to stop: how many forward passes each image
gets is planned by the shares that `calibrate --adaptive` measured (`--calibration`, the file that it wrote;
without it those in PASS_SHARES, and where they came from).

    python examples/benchmarks/published.py WORK_FOLDER --images 16
    python examples/benchmarks/published.py WORK_FOLDER --images 16 --runtime openvino-bf16
"""

from __future__ import annotations

import argparse
import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np

from skinlesion_cli.decisions.adaptive.forward_passes import Steps
from skinlesion_cli.decisions.adaptive.stopping import stored_step_shares

# What `examples/benchmarks/forward_passes.py` printed for three trained networks (efficientnet_lite0, the
# runs default-seed1, default-seed2 and equal-classes-seed1 of `examples/ablation.py --epochs 6`)
# on 2,004 test images: 7.30 of 24 forward passes.
PASS_SHARES = [
    *(0.1337, 0.2221, 0.1821, 0.0274, 0.0339, 0.0474, 0.0220, 0.0165, 0.0344, 0.0225, 0.0180, 0.0190),
    *(0.0125, 0.0125, 0.0190, 0.0120, 0.0120, 0.0180, 0.0105, 0.0135, 0.0210, 0.0135, 0.0210, 0.0559),
]


class Planned:
    """Stops every image after a number of steps that was planned for it, in the `shares` of 1, 2,
    ... steps.
    """

    def __init__(self, shares: np.ndarray, weights: tuple[float, ...], count: int) -> None:
        self.weights, self.steps = weights, Steps(weights, len(shares) // len(weights))
        # Evenly spaced quantiles: few images have the same mean as many.
        quantiles = (np.arange(count) + 0.5) / count
        self.planned = np.searchsorted(shares.cumsum(), quantiles) + 1
        np.random.default_rng(0).shuffle(self.planned)
        self.local = threading.local()
        self.start()

    def start(self) -> None:
        """Hand out the plan from its beginning."""
        self.left, self.lock = iter(self.planned), threading.Lock()

    def converged(self, probabilities: np.ndarray, n_steps: int) -> np.ndarray:
        if n_steps == 1:
            with self.lock:
                self.local.plan = np.array(list(itertools.islice(self.left, len(probabilities))))
        done = self.local.plan <= n_steps
        self.local.plan = self.local.plan[~done]
        return done


def published_way(root: Path, threads: int, batch: int) -> Callable[[list[Path]], None]:
    """Loads the networks; hands back what predicts all images."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    from skinlesion_cli.artifacts.bundle import Bundle
    from skinlesion_cli.artifacts.workspace import Workspace
    from skinlesion_cli.data.preprocess import resize_square
    from skinlesion_cli.data.reading.images import read_image
    from skinlesion_cli.models.network import restore_network

    torch.set_num_threads(threads)

    class Images(Dataset[Any]):
        def __init__(self, paths: list[Path], size_px: int) -> None:
            self.paths, self.size_px = paths, size_px

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, index: int) -> Any:
            pixels = resize_square(read_image(self.paths[index]), self.size_px)
            image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous().float() / 255
            mean, std = (
                torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
            )
            return (image - mean) / std

    members = Bundle.load(Workspace(root)).members
    networks = [
        (
            restore_network(m).backbone.eval().to(memory_format=torch.contiguous_format),
            m.preprocessing.input_size_px,
        )
        for m in members
    ]

    def run(paths: list[Path]) -> None:
        total: Any = 0
        with torch.no_grad():
            for network, size_px in networks:
                found = []
                for pixels in DataLoader(Images(paths, size_px), batch_size=batch):
                    rounds = [torch.softmax(network(turned(pixels)), 1) for _ in range(10)]
                    found.append(torch.stack(rounds).mean(0))
                total = total + torch.cat(found) / len(networks)
        assert total.shape == (len(paths), 7)

    def turned(batch: Any) -> Any:
        seen = torch.rot90(batch, int(torch.randint(4, ())), (2, 3)) if torch.rand(()) < 0.5 else batch
        seen = torch.flip(seen, (3,)) if torch.rand(()) < 0.5 else seen
        return (torch.flip(seen, (2,)) if torch.rand(()) < 0.5 else seen).contiguous()

    return run


def our_way(
    root: Path, threads: int, runtime: str, shares: np.ndarray | None, count: int
) -> Callable[[list[Path]], None]:
    """Loads the networks; hands back what decodes, predicts and decides all images."""
    from skinlesion_cli.artifacts.bundle import Bundle
    from skinlesion_cli.artifacts.workspace import Workspace
    from skinlesion_cli.data.reading.inputs import ImageInput
    from skinlesion_cli.parallel import in_batches
    from skinlesion_cli.stages.predict.backends import by_threads
    from skinlesion_cli.stages.predict.worker import Plan, Worker

    bundle = Bundle.load(Workspace(root))
    worker = Worker(Plan(root, bundle.sha256, runtime), bundle)
    planned = None if shares is None else Planned(shares, bundle.ensemble.group_weights, count)
    if planned is not None:
        worker.predictor.engine.stopping = planned

    def run(paths: list[Path]) -> None:
        if planned is not None:
            planned.start()
        numbered = [(index + 1, ImageInput(path.name, path)) for index, path in enumerate(paths)]
        chunks = by_threads(worker, in_batches(numbered, 4), threads)
        predictions = [prediction for chunk in chunks for prediction in chunk]
        assert len(predictions) == len(paths)
        if planned is not None:
            assert sum(prediction.forward_passes for prediction in predictions) == planned.planned.sum()

    return run


def measured(calibration: Path) -> tuple[float, ...]:
    """Shares of images that need 1, 2, ... steps."""
    from skinlesion_cli.artifacts.calibration import Calibration

    stopping = Calibration.load(calibration).stopping
    if stopping is None or stopping["n_steps"] != 24:
        raise SystemExit("not a calibration with --adaptive of three networks over 8 views")
    return tuple(stored_step_shares(stopping))


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2, help="the best of so many runs counts, for each way")
    parser.add_argument("--threads", type=int, default=common.os.cpu_count(), help="for each way")
    parser.add_argument("--batch", type=int, default=32, help="of the published way")
    parser.add_argument("--runtime", default="onnx", help="onnx or openvino-bf16")
    parser.add_argument(
        "--calibration", type=Path, help="take the shares of forward passes from this calibration.json"
    )
    options = parser.parse_args()
    shares = np.array(PASS_SHARES if options.calibration is None else measured(options.calibration))
    shares /= shares.sum()
    root = common.workspace(options.folder / "published-ws", common.PUBLISHED)
    paths = common.images(options.folder / "images-600", options.images)
    published = published_way(root, options.threads, options.batch)
    if options.runtime not in ("torch", "onnx"):
        common.export_unjudged(root, options.runtime)
    plain = our_way(root, options.threads, options.runtime, None, options.images)
    stopping = our_way(root, options.threads, options.runtime, shares, options.images)
    ways = {
        "published": common.best(lambda: published(paths), options.rounds),
        f"{options.runtime}_d4": common.best(lambda: plain(paths), options.rounds),
        f"{options.runtime}_adaptive": common.best(lambda: stopping(paths), options.rounds),
    }
    common.report(
        **common.compared(ways, "published", options.images),
        threads=options.threads,
        mean_steps=float(np.dot(shares, np.arange(1, len(shares) + 1))),
    )


if __name__ == "__main__":
    main()
