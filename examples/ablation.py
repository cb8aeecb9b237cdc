"""What the choices of the default recipe are worth: it against the published one,
and against itself without one.

    python examples/ablation.py --workspace skinlesion-workspace --minutes 30
    python examples/ablation.py --workspace skinlesion-workspace --minutes 30 --collect   # the table so far

On a quiet machine, `--plan` first measures how many epochs fit; the runs themselves may then go side by side
(`--only`, `OMP_NUM_THREADS=1`) or next to other work without getting less training for it. `--epochs` gives
all runs the same number of epochs, the dearer ones included.

Every run is the project's own `train` command, one after the other, in a folder of its own under `--folder`.
All runs of one network have the same wall-clock budget: a dry run times a few steps, and the number of epochs
is what fits into the minutes. That number is written down before the first run, so the same command goes on
where it was stopped. The table has the balanced accuracy (mean of eight views) of every seed, and the
difference to the default with a 95 % interval by paired bootstrap over lesions. It is taken on the test part
where the split has one; on the validation part every run also chose its epoch, which flatters all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from skinlesion_cli.artifacts.predictions import Predictions  # noqa: E402
from skinlesion_cli.artifacts.workspace import Workspace  # noqa: E402
from skinlesion_cli.decisions.evaluation.figures import Figures, Labelled, evaluate  # noqa: E402
from skinlesion_cli.taxonomy import shipped  # noqa: E402

ISIC2018 = shipped("isic2018")


@dataclass(frozen=True)
class Variant:
    """A recipe with some settings changed; `asks` is the question that it answers."""

    asks: str
    recipe: str = "default"
    settings: tuple[str, ...] = ()


def variants(size_px: int) -> dict[str, Variant]:
    size = ("progressive_sizes_px=[]", f"input_size_px={size_px}", "field_px=null")
    fixed = (*size, "cache_size_px=224")

    def without(asks: str, *settings: str) -> Variant:
        return Variant(asks, settings=(*fixed, *settings))

    return {
        "default": without("the recipe at this size"),
        "published": Variant(
            "the published recipe at this size", "published", (*size, f"cache_size_px={size_px}")
        ),
        "published-augmentation": without("augmentation by class", "augmentation=published"),
        "image-by-image": without("augmentation `default`", "augmentation=default"),
        "equal-classes": without(
            "sampler with 1 / count, no offsets of the logits", "sampler_power=1.0", "logit_adjustment=0"
        ),
        "class-weights": without(
            "half of the balance as weights in the loss", "logit_adjustment=0", "loss_weight_power=0.5"
        ),
        "no-mixing": without("neither mixup nor CutMix", "mixup_alpha=0", "cutmix_alpha=0"),
        "no-average": without("raw instead of averaged weights", "ema_decay=null"),
        "metadata": without(
            "a branch for age, sex and site (predicted without them)", "metadata_fields=[age, sex, site]"
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", type=Path, required=True, help="where the dataset is")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "ablation")
    parser.add_argument("--arch", default="efficientnet_lite0")
    parser.add_argument("--weights", default="auto")
    parser.add_argument("--minutes", type=float, default=30.0, help="training time of every run")
    parser.add_argument(
        "--epochs", type=int, help="so many epochs for every run, whatever fits into the minutes"
    )
    parser.add_argument("--size-px", type=int, default=128, help="input size of all runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", nargs="+", help="these variants alone")
    parser.add_argument("--max-epochs", type=int, default=35)
    parser.add_argument("--set", action="append", default=[], help="a setting for all runs")
    parser.add_argument("--plan", action="store_true", help="train nothing, only measure how many epochs fit")
    parser.add_argument("--collect", action="store_true", help="train nothing, print the table")
    options = parser.parse_args()
    known = variants(options.size_px)
    chosen = options.only or list(known)
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        parser.error(f"no such variant: {', '.join(unknown)}; known: {', '.join(known)}")
    if options.plan:
        for name in chosen:
            print(f"{name}: {_epochs(options, name, known[name])} epochs in {options.minutes:g} minutes")
        return
    if not options.collect:
        for seed in options.seeds:
            for name in chosen:
                train(options, name, known[name], seed)
    print(table(options, known))


def train(options: argparse.Namespace, name: str, variant: Variant, seed: int) -> None:
    workspace = _workspace(options, name, seed)
    epochs = options.epochs or _epochs(options, name, variant)
    print(f"{workspace.name}: {epochs} epochs", file=sys.stderr, flush=True)
    arguments = _arguments(options, variant, workspace, epochs)
    subprocess.run([*arguments, "--seed", str(seed)], env=_environment(), check=True, stdout=sys.stderr)


def _workspace(options: argparse.Namespace, name: str, seed: int) -> Path:
    """The folder of one run, with the dataset that all runs share."""
    workspace = options.folder / f"{options.arch}-{name}-seed{seed}"
    workspace.mkdir(parents=True, exist_ok=True)
    dataset = workspace / "dataset"
    if not dataset.exists():
        dataset.symlink_to((options.workspace / "dataset").resolve())
    return workspace


def _arguments(options: argparse.Namespace, variant: Variant, workspace: Path, epochs: int) -> list[str]:
    settings = [*variant.settings, *options.set]
    return [
        *(
            sys.executable,
            "-m",
            "skinlesion_cli",
            "train",
            "--arch",
            options.arch,
            "--recipe",
            variant.recipe,
        ),
        *("--weights", options.weights, "--workspace", str(workspace), "--epochs", str(epochs)),
        *(part for setting in settings for part in ("--set", setting)),
    ]


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


def _epochs(options: argparse.Namespace, name: str, variant: Variant) -> int:
    """Epochs that fit into the minutes: measured once, then read, so that a stopped run can go on."""
    path = options.folder / f"{options.arch}-epochs.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    key = f"{name} in {options.minutes:g} min"
    if key not in known:
        workspace = _workspace(options, name, options.seeds[0])
        arguments = _arguments(options, variant, workspace, epochs=10)
        done = subprocess.run(
            [*arguments, "--dry-run", "--json"],
            env=_environment(),
            check=True,
            capture_output=True,
            text=True,
        )
        figures = json.loads(done.stdout)["figures"]
        fits = int(options.minutes * 60 / (figures["training_seconds"] / 10))
        known[key] = max(1, min(fits, options.max_epochs))
        path.write_text(json.dumps(known, indent=1) + "\n")
    return known[key]


def table(options: argparse.Namespace, known: dict[str, Variant]) -> str:
    found: dict[str, dict[int, Figures]] = {}
    part = "test"
    for name in known:
        for seed in options.seeds:
            workspace = Workspace(options.folder / f"{options.arch}-{name}-seed{seed}")
            if not workspace.checkpoint(options.arch).exists():
                continue
            if not workspace.predictions(options.arch, "test").exists():
                part = "val"
            path = workspace.predictions(options.arch, part)
            if path.exists():
                found.setdefault(name, {})[seed] = _judged(Predictions.load(path))
    budget = f"{options.epochs} epochs" if options.epochs else f"{options.minutes:g} minutes of training"
    lines = [
        f"{options.arch}, {budget} each, {part} part",
        "",
        "| run | BACC of each seed | mean | less than the default by | 95 % interval | what is asked |",
        "|---|---|---|---|---|---|",
    ]
    for name, seeds in found.items():
        values = [figures.values["bacc"] for figures in seeds.values()]
        gain = _gain(found.get("default", {}), seeds) if name != "default" else "| "
        each = ", ".join(f"{value:.3f}" for value in values)
        lines.append(f"| {name} | {each} | {np.mean(values):.3f} | {gain} | {known[name].asks} |")
    return "\n".join(lines)


def _judged(predictions: Predictions) -> Figures:
    values = predictions.probabilities
    data = Labelled(predictions.labels, values, values.argmax(axis=1), predictions.lesion_ids, ISIC2018)
    return evaluate(data, ranking=False)


def _gain(default: dict[int, Figures], other: dict[int, Figures]) -> str:
    """Mean difference over the seeds that both have; the same lesions are drawn for all of them."""
    seeds = sorted(default.keys() & other.keys())
    if not seeds:
        return "- | -"
    pairs = [(default[seed], other[seed]) for seed in seeds]
    value = np.mean([a.values["bacc"] - b.values["bacc"] for a, b in pairs])
    drawn = np.mean([a.replicates["bacc"] - b.replicates["bacc"] for a, b in pairs], axis=0)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{value:+.3f} | {low:+.3f} to {high:+.3f}"


if __name__ == "__main__":
    main()
