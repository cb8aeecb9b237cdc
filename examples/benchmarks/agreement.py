"""Do fewer bits and fewer looks decide as float32 and all looks do? A trained ensemble, on test images.

    python examples/benchmarks/agreement.py WORKSPACE WORKSPACE WORKSPACE --arch efficientnet_lite0 \\
        --runtime openvino-bf16

Every workspace has a network of this architecture, trained on the same dataset and split (those that
`examples/ablation.py` leaves, say). Their decision rule and its stopping rule are fitted on the validation
predictions that torch stored, in float32 and with all views. Then the test images, which neither the networks
nor the rules have seen, go through the runtime, stopping where the rule says; their decisions are compared
with those that torch's stored predictions lead to. One JSON object.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import common
import numpy as np

from skinlesion_cli.artifacts.checkpoint import Checkpoint
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.data.preprocess import to_input
from skinlesion_cli.data.reading.images import read_image
from skinlesion_cli.decisions.adaptive.fit import fit_adaptive
from skinlesion_cli.decisions.settings import FitSettings
from skinlesion_cli.decisions.statistics import metrics
from skinlesion_cli.decisions.statistics.bounds import binomial_interval
from skinlesion_cli.decisions.triage import apply_rule
from skinlesion_cli.inference.engine import Engine, EngineMember
from skinlesion_cli.inference.runtimes.exported import exported_runtime
from skinlesion_cli.models.network import restore_network
from skinlesion_cli.models.onnx_export import to_onnx
from skinlesion_cli.taxonomy import shipped

ISIC2018 = shipped("isic2018")


def member(workspace: Workspace, arch: str, weight: float, kind: str) -> EngineMember:
    """The workspace's network in the runtime."""
    checkpoint = Checkpoint.load(workspace.checkpoint(arch))
    network = restore_network(checkpoint)
    model = to_onnx(network, checkpoint.preprocessing.input_size_px)
    classifier = network.classifier.weight.detach().numpy()
    return EngineMember(
        checkpoint.name, weight, checkpoint.preprocessing, exported_runtime(model, kind), classifier
    )


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workspaces", type=Path, nargs="+")
    parser.add_argument("--arch", default="efficientnet_lite0")
    parser.add_argument("--runtime", default="openvino-bf16", help="openvino-bf16 or onnx")
    parser.add_argument("--policy", default="guaranteed")
    parser.add_argument("--images", type=int, help="at most so many test images")
    options = parser.parse_args()
    spaces = [Workspace(path) for path in options.workspaces]
    weights = (1 / len(spaces),) * len(spaces)
    validation = [Predictions.load(space.predictions(options.arch, "val")) for space in spaces]
    test = [Predictions.load(space.predictions(options.arch, "test")) for space in spaces]
    groups, unseen = (np.stack([p.view_probabilities for p in found], axis=1) for found in (validation, test))
    first = validation[0]
    settings = FitSettings(policy=options.policy)
    fit, _ = fit_adaptive(first.labels, groups, weights, first.lesion_ids, settings, "decision", ISIC2018)
    engine = Engine(
        [member(s, options.arch, w, options.runtime) for s, w in zip(spaces, weights, strict=True)],
        np.array(weights),
        test[0].views,
        to_input,
        stopping=fit.stopping,
    )
    ids = test[0].table["id"].tolist()[: options.images]
    files = Manifest.load(spaces[0].manifest).rows(ids)["file"]
    started = time.perf_counter()
    outputs = [engine.run([read_image(spaces[0].images / file)]) for file in files]
    seconds = time.perf_counter() - started
    found = np.concatenate([output.probabilities for output in outputs])
    full = unseen[: len(ids)].mean(axis=(1, 2), dtype=np.float64).astype(np.float32)
    wanted, decided = (apply_rule(fit.stopping.rule, values).decisions.decided for values in (full, found))
    differing, labels = int((wanted != decided).sum()), test[0].labels[: len(ids)]
    common.report(
        runtime=options.runtime,
        networks=len(spaces),
        policy=options.policy,
        test_images=len(ids),
        mean_forward_passes=float(np.concatenate([output.forward_passes for output in outputs]).mean()),
        decisions_differing=differing,
        share_equal=1.0 - differing / len(ids),
        share_equal_interval_95=[round(1.0 - v, 5) for v in binomial_interval(differing, len(ids))[::-1]],
        bacc_torch_all_views=metrics.balanced_accuracy(labels, wanted),
        bacc_here=metrics.balanced_accuracy(labels, decided),
        images_per_s_one_thread=len(ids) / seconds,
    )


if __name__ == "__main__":
    main()
