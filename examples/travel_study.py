"""How far a network travels: trained on the images of one source, judged on those of another.

    python examples/travel_study.py --workspace skinlesion-workspace --home isic2018 --away isic2017
    python examples/travel_study.py --workspace skinlesion-workspace --home isic2018 --away isic2017 --collect
    python examples/travel_study.py --workspace skinlesion-workspace --home isic2018 --away isic2017 --both

The workspace holds both sources, split into folds. The home lesions of fold 0 are held out; the network never
sees an image of the other source, of which images are left out whose class does not occur at home. With
`--both` it is trained on the other source as well, and judged on the lesions of fold 0 of each. Every
variant changes one thing in the recipe `examples/bundled_model/two-sources.yaml` with a short budget; `--set`
changes a setting of all variants that do not set it themselves. Runs are the project's own `train` command,
each in a folder of its own under `--folder`, and resume where they were stopped; `--jobs` runs several side
by side. Probabilities are calibrated as `skinlesion calibrate` does it, on the held-out images at home (for
these themselves, on four fifths of their lesions for the fifth): variants that balance the classes in
different ways are to be compared by what users of the networks would see. The table has, with 95 % intervals
over lesions, balanced accuracy (of the class of the highest probability relative to its share at home) and
the area under the curve of melanoma at home, and away the latter and the balanced accuracy over the classes
that both sources have; the last columns are paired differences to the first variant.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from PIL import Image
from sklearn.metrics import recall_score, roc_auc_score

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

from view_study import in_white_light  # noqa: E402

from skinlesion_cli.artifacts.files import sha256_file  # noqa: E402
from skinlesion_cli.artifacts.manifest import Manifest  # noqa: E402
from skinlesion_cli.artifacts.predictions import Predictions  # noqa: E402
from skinlesion_cli.artifacts.split import Split  # noqa: E402
from skinlesion_cli.artifacts.workspace import Workspace  # noqa: E402
from skinlesion_cli.data.reading.images import read_image  # noqa: E402
from skinlesion_cli.decisions.probability_fit import fit  # noqa: E402
from skinlesion_cli.decisions.statistics.folds import grouped_folds  # noqa: E402
from skinlesion_cli.inference.tta import MODES  # noqa: E402
from skinlesion_cli.taxonomy import shipped  # noqa: E402

ISIC2018 = shipped("isic2018")

RECIPE = ROOT / "examples" / "bundled_model" / "two-sources.yaml"
RESAMPLES = 1000
BASE = ("progressive_sizes_px=[[0.0, 128], [0.8, 160]]", "input_size_px=160")


@dataclass(frozen=True)
class Variant:
    """The recipe with some settings changed, and how its predictions are averaged."""

    settings: tuple[str, ...] = ()
    arch: str = "efficientnet_lite0"
    seed: int = 1
    views: str = "zoom"
    # Trains and predicts in white light by shades of grey.
    white: bool = False
    # Trains nothing: judges the mean of the probabilities of these variants.
    mean_of: tuple[str, ...] = ()


def _omits(*groups: str) -> Variant:
    return Variant((f"augmentation_omits=[{', '.join(groups)}]",))


VARIANTS: dict[str, Variant] = {
    "base": Variant(),
    "base, seed 2": Variant(seed=2),
    "base, seed 3": Variant(seed=3),
    "no random scale": _omits("scale"),
    "no artefacts": _omits("artefacts"),
    "no colour": _omits("colour"),
    "no random sharpness": _omits("sharpness"),
    "no erasing": _omits("erasing"),
    "none of these": _omits("scale", "artefacts", "colour", "sharpness", "erasing"),
    "augmentation varied": Variant(("augmentation=varied",)),
    "mixup 0.2": Variant(("mixup_alpha=0.2",)),
    "CutMix 1.0": Variant(("cutmix_alpha=1.0",)),
    "class weights, no logit adjustment": Variant(("logit_adjustment=0.0", "loss_weight_power=0.5")),
    "sources alike": Variant(("sampler_source_power=1.0",)),
    "white light": Variant(white=True),
    "no class balance": Variant(("logit_adjustment=0.0", "sampler=uniform")),
    "96, then 128 px": Variant(("progressive_sizes_px=[[0.0, 96], [0.8, 128]]", "input_size_px=128")),
    "128, then 160 px": Variant(BASE),
    "160, then 192 px": Variant(("progressive_sizes_px=[[0.0, 160], [0.8, 192]]", "input_size_px=192")),
    "efficientnet_lite2": Variant(arch="efficientnet_lite2"),
    "two of a kind: base, seeds 1 and 2": Variant(mean_of=("base", "base, seed 2")),
    "two kinds: base and efficientnet_lite2": Variant(mean_of=("base", "efficientnet_lite2")),
    "one view": Variant(views="none", mean_of=("base",)),
    "views d4": Variant(views="d4", mean_of=("base",)),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", type=Path, required=True, help="where the dataset of both sources is")
    parser.add_argument("--home", required=True, help="source to train on")
    parser.add_argument("--away", required=True, help="source to judge on")
    parser.add_argument("--away-images", type=int, help="judge on at most so many of them, seed 0")
    parser.add_argument("--both", action="store_true", help="train on both, judge on fold 0 of each")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "travel")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--only", nargs="+", help="these variants alone")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--collect", action="store_true", help="train nothing, print the table")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        help="a setting for all variants that do not change it themselves",
    )
    parser.add_argument("options", nargs="*", help="after --: options for every `skinlesion train`")
    options = parser.parse_args()
    unknown = sorted(set(options.only or ()) - set(VARIANTS))
    if unknown:
        parser.error(f"no such variant: {', '.join(unknown)}; known: {', '.join(VARIANTS)}")
    names = options.only or list(VARIANTS)
    if not options.collect:
        white = {VARIANTS[name].white for name in names if not VARIANTS[name].mean_of}
        datasets = {kind: _dataset(options, white=kind) for kind in sorted(white)}
        with ThreadPoolExecutor(options.jobs) as pool:
            to_train = [name for name in names if not VARIANTS[name].mean_of]
            for _ in pool.map(lambda name: _train(options, datasets[VARIANTS[name].white], name), to_train):
                pass
    print(table(options, names))


def _title(options: argparse.Namespace) -> str:
    return f"{options.home} {'and' if options.both else 'to'} {options.away}"


def _dataset(options: argparse.Namespace, *, white: bool = False) -> Path:
    """The dataset: home lesions of fold 0 validate, the others train, and the other source tests, or fold 0
    of it if the others of its lesions train too."""
    name = "-".join(["dataset", *_title(options).split(), *["white"] * white])
    folder: Path = options.folder / name
    if (folder / "split.json").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    source = Workspace(options.workspace)
    manifest = Manifest.load(source.manifest)
    folds = Split.load(source.split, manifest).table
    for path in source.dataset.iterdir():
        if not path.name.startswith(("split", "images", *["manifest"] * white)):
            shutil.copy2(path, folder)
    if white:
        _in_white_light(manifest, source.images, folder / "images").save(folder / "manifest.json")
        manifest = Manifest.load(folder / "manifest.json")
    else:
        (folder / "images").symlink_to(source.images.resolve())
    known = manifest.rows(folds["id"].tolist())
    origin, labels = known["source"].to_numpy(), known["label"].to_numpy()
    at_home = origin == options.home
    # Of the other source, the classes that a network trained at home can know.
    away = np.flatnonzero((origin == options.away) & np.isin(labels, np.unique(labels[at_home])))
    if options.away_images and len(away) > options.away_images:
        away = np.random.default_rng(0).choice(away, options.away_images, replace=False)
    held_out = (folds["fold"] == "0").to_numpy()
    part = np.where(held_out, "val", "train")
    part[away if not options.both else away[held_out[away]]] = "test"
    rows = folds.assign(part=part, fold="").iloc[np.union1d(np.flatnonzero(at_home), away)]
    split = Split(rows.reset_index(drop=True), strategy=_title(options), seed=0)
    split.save(folder / "split.json", manifest)
    return folder


def _in_white_light(manifest: Manifest, images: Path, folder: Path) -> Manifest:
    """Copies of the images in white light, and their manifest."""

    def copied(identity: str, file: str) -> tuple[str, str]:
        name = f"{identity}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(in_white_light(read_image((images / file).read_bytes()))).save(
            folder / name, compress_level=1
        )
        return name, sha256_file(folder / name)

    known = zip(manifest.table["id"], manifest.table["file"], strict=True)
    made = Parallel(n_jobs=-1, prefer="threads")(delayed(copied)(*row) for row in known)
    files, hashes = zip(*made, strict=True)
    return replace(manifest, table=manifest.table.assign(file=files, sha256=hashes), artifact=None)


def _workspace(options: argparse.Namespace, name: str) -> Workspace:
    safe = "".join(c if c.isalnum() else "-" for c in name)
    return Workspace(options.folder / "-".join([*_title(options).split(), safe]))


def _train(options: argparse.Namespace, dataset: Path, name: str) -> None:
    variant, workspace = VARIANTS[name], _workspace(options, name)
    workspace.root.mkdir(parents=True, exist_ok=True)
    if not workspace.dataset.exists():
        workspace.dataset.symlink_to(dataset.resolve())
    settings = (*BASE, *options.set, *variant.settings)
    command = [
        *(sys.executable, "-m", "skinlesion_cli", "train", "--arch", variant.arch, "--recipe", str(RECIPE)),
        *("--workspace", str(workspace.root), "--epochs", str(options.epochs), "--seed", str(variant.seed)),
        *(part for setting in settings for part in ("--set", setting)),
        *options.options,
    ]
    with (workspace.root / "log.txt").open("a") as log:
        done = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": _search_path()}, stdout=log, stderr=log, check=False
        )
    print(f"{name}: exit code {done.returncode}", file=sys.stderr, flush=True)


def _search_path() -> str:
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def table(options: argparse.Namespace, names: list[str]) -> str:
    """All finished variants as a Markdown table."""
    lines = [
        f"{_title(options)}, {options.epochs} epochs",
        "",
        "| variant | BACC at home | AUC of MEL at home | AUC of MEL away | BACC of shared classes away "
        "| BACC at home, difference | AUC away, difference |",
        "|---|---|---|---|---|---|---|",
    ]
    reference: list[np.ndarray] | None = None
    for name in names:
        variant = VARIANTS[name]
        members = variant.mean_of or (name,)
        paths = {
            part: [_workspace(options, member).predictions(VARIANTS[member].arch, part) for member in members]
            for part in ("val", "test")
        }
        if not all(path.exists() for part in paths.values() for path in part):
            continue
        home, away = ([Predictions.load(path) for path in paths[part]] for part in ("val", "test"))
        for found in (home, away):
            if any(not one.table["id"].equals(found[0].table["id"]) for one in found):
                raise SystemExit("the variants predict other images, or in another order; train them again")
        at_home, elsewhere = calibrated(
            home[0], _mean(home, variant.views), away[0], _mean(away, variant.views)
        )
        share = np.bincount(home[0].labels, minlength=ISIC2018.n_classes) / len(home[0].labels)
        (bacc, auc), (bacc_away, auc_away) = (
            _resampled(found[0], probabilities, share)
            for found, probabilities in ((home, at_home), (away, elsewhere))
        )
        figures = [bacc, auc, auc_away, bacc_away]
        reference = reference or figures
        differences = [figures[i] - reference[i] for i in (0, 2)]
        cells = [_cell(values) for values in figures]
        cells += [_cell(values) if reference is not figures else "" for values in differences]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: np.ndarray) -> str:
    """Estimate (the first value) and the interval of the others."""
    low, high = np.nanpercentile(values[1:], [2.5, 97.5])
    return f"{values[0]:.3f} ({low:.3f} to {high:.3f})"


def _mean(members: list[Predictions], views: str) -> np.ndarray:
    """Mean probabilities of these views of all members, float32 (n, n_classes)."""
    return np.mean(
        [
            member.view_probabilities[:, [member.views.index(view) for view in MODES[views]]].mean(axis=1)
            for member in members
        ],
        axis=0,
    )


def calibrated(
    home: Predictions, at_home: np.ndarray, away: Predictions, elsewhere: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays of probabilities, calibrated class by class on the images at home; those at home by
    cross-fitting over lesions."""
    result = np.empty_like(at_home)
    for seen, held_out in grouped_folds(home.labels, home.lesion_ids):
        result[held_out] = fit(home.labels[seen], at_home[seen], "vector").apply(at_home[held_out])
    return result, fit(home.labels, at_home, "vector").apply(elsewhere)


def _resampled(judged: Predictions, probabilities: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, ...]:
    """Balanced accuracy and the area under the curve of melanoma on all images, then on resampled lesions,
    the same ones for every variant. `share` is how frequent each class is where they were calibrated.
    """
    labels = judged.labels
    lesions = judged.table["lesion_id"].where(judged.table["lesion_id"] != "", judged.table["id"])
    rows_of = list(pd.Series(range(len(labels))).groupby(lesions.to_numpy()).indices.values())
    relative = np.divide(probabilities, share, out=np.zeros_like(probabilities), where=share > 0)
    generator = np.random.default_rng(0)
    results = [(_bacc(labels, relative), _auc_mel(labels, probabilities))]
    for _ in range(RESAMPLES):
        drawn = generator.integers(len(rows_of), size=len(rows_of))
        rows = np.concatenate([rows_of[index] for index in drawn])
        results.append((_bacc(labels[rows], relative[rows]), _auc_mel(labels[rows], probabilities[rows])))
    return tuple(np.array(results).T)


def _auc_mel(labels: np.ndarray, probabilities: np.ndarray) -> float:
    melanoma = labels == ISIC2018.index["MEL"]
    if melanoma.all() or not melanoma.any():
        return float("nan")
    return float(roc_auc_score(melanoma, probabilities[:, ISIC2018.index["MEL"]]))


def _bacc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean sensitivity of the classes that occur; the decision is that of them with the highest value."""
    present = np.unique(labels)
    decided = present[probabilities[:, present].argmax(axis=1)]
    return float(recall_score(labels, decided, labels=present, average="macro"))


if __name__ == "__main__":
    main()
