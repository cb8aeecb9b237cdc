"""How many forward passes an ensemble needs when it stops between forward passes,
and what that changes on unseen images.

    python examples/benchmarks/forward_passes.py --validation A/predictions-val.json B/... --test \\
        A/predictions-test.json B/...

Reads the stored predictions of trained networks (the same images, view by view), fits the stopping rule on
the validation images as `calibrate --adaptive decision` does, once for looks of single networks and once for
whole views of all of them, and counts on the test images, which neither the networks nor the rule have seen:
the mean number of forward passes, and the decisions that differ from those of all passes. Weights are equal.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import common  # noqa: F401
import numpy as np

from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.decisions.adaptive.fit import fit_adaptive
from skinlesion_cli.decisions.adaptive.stopping import stopped_means
from skinlesion_cli.decisions.settings import FitSettings
from skinlesion_cli.decisions.statistics.bounds import binomial_interval
from skinlesion_cli.decisions.triage import apply_rule
from skinlesion_cli.taxonomy import shipped

ISIC2018 = shipped("isic2018")


def read(paths: list[Path]) -> tuple[Predictions, np.ndarray]:
    """The first one, and float32 (n_images, n_networks, n_views, 7) of all."""
    found = [Predictions.load(path) for path in paths]
    if any(p.table["id"].tolist() != found[0].table["id"].tolist() for p in found):
        raise SystemExit("these networks predicted different images")
    return found[0], np.stack([p.view_probabilities for p in found], axis=1)


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--validation", type=Path, nargs="+", required=True)
    parser.add_argument("--test", type=Path, nargs="+", required=True)
    parser.add_argument("--policy", default="guaranteed")
    options = parser.parse_args()
    (fitted_on, groups), (judged_on, unseen) = read(options.validation), read(options.test)
    settings = FitSettings(policy=options.policy)
    n_networks = groups.shape[1]
    summary: dict[str, object] = {
        "networks": n_networks,
        "policy": options.policy,
        "validation_images": len(fitted_on.table),
        "test_images": len(judged_on.table),
    }
    for name, seen, new, weights in (
        ("single_passes", groups, unseen, (1 / n_networks,) * n_networks),
        ("whole_views", groups.mean(axis=1, keepdims=True), unseen.mean(axis=1, keepdims=True), (1.0,)),
    ):
        found, _ = fit_adaptive(
            fitted_on.labels, seen, weights, fitted_on.lesion_ids, settings, "decision", ISIC2018
        )
        means, taken = stopped_means(found.stopping, new)
        full = new.mean(axis=(1, 2), dtype=np.float64).astype(np.float32)
        rule = found.stopping.rule
        differing = apply_rule(rule, means).decisions.decided != apply_rule(rule, full).decisions.decided
        passes = n_networks // len(weights)
        summary[name] = {
            "passes_of_all": passes * found.n_steps,
            "passes_on_validation": round(passes * found.mean_steps, 3),
            "passes_on_test": round(float(passes * taken.mean()), 3),
            "decisions_changed_on_test": int(differing.sum()),
            "share_changed_on_test": round(float(differing.mean()), 5),
            "share_changed_interval_95": [
                round(value, 5) for value in binomial_interval(int(differing.sum()), len(differing))
            ],
            "look_shares_on_test": [
                round(float((taken == n).mean()), 4) for n in range(1, found.n_steps + 1)
            ],
        }
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
