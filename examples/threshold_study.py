"""Do clinical thresholds hold on new patients? A study on stored predictions.

The pool of labelled predictions (of images that the network never trained on) is cut 1,000 times into two
halves by lesion, each class evenly. Every policy is fitted on one half, with its own probability calibration,
and judged on the other by its final decisions, or by its alarms where it has some:

    python examples/threshold_study.py WORKSPACE/models/NAME/predictions-val.json \
        WORKSPACE/models/NAME/predictions-test.json

Other targets: --target MEL:sensitivity=0.6,specificity=0.8, once per class.

`met` is the share of cuts in which the sensitivity on the other half, one vote per lesion, is at least its
target; `guarantee kept` the same for what the policy guaranteed on that half. Policies that guarantee nothing
of their own are held to the target. One cut in twenty may break a guarantee made with confidence 0.95.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from joblib import Parallel, delayed

from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.config.policy import load_policy
from skinlesion_cli.decisions.fit import fit_rule
from skinlesion_cli.decisions.policies.published import PUBLISHED_TARGETS
from skinlesion_cli.decisions.probability_fit import fit
from skinlesion_cli.decisions.settings import FitSettings, Target
from skinlesion_cli.decisions.statistics import bounds, metrics
from skinlesion_cli.decisions.statistics.lesions import Lesions, group, votes
from skinlesion_cli.decisions.thresholds import decide
from skinlesion_cli.decisions.triage import apply_rule
from skinlesion_cli.taxonomy import shipped

ISIC2018 = shipped("isic2018")


@dataclass(frozen=True)
class Pool:
    """Labelled predictions to be cut in two."""

    labels: np.ndarray
    probabilities: np.ndarray
    lesion_ids: np.ndarray

    def rows(self, rows: np.ndarray) -> Pool:
        return Pool(self.labels[rows], self.probabilities[rows], self.lesion_ids[rows])


@dataclass(frozen=True)
class Decided:
    """Decisions on the other half, and the `alarms` by class, which are judged instead of the decided class;
    `guaranteed` and `granted` by target, None where the policy guarantees nothing."""

    decided: np.ndarray
    guaranteed: tuple[float | None, ...] | None = None
    granted: tuple[bool, ...] | None = None
    alarms: Mapping[str, np.ndarray] = field(default_factory=dict)

    def called(self, target: Target) -> np.ndarray:
        """bool (n_images,): where the class of the target is called."""
        return self.alarms.get(target.class_name, self.decided == ISIC2018.index[target.class_name])


Targets = tuple[Target, ...]
Policy = Callable[[Pool, Pool], Decided]


def by_settings(settings: FitSettings) -> Policy:
    """What `skinlesion calibrate` does with these settings."""

    def policy(here: Pool, there: Pool) -> Decided:
        fitted = fit_rule(here.labels, here.probabilities, here.lesion_ids, settings, ISIC2018)
        outcome = apply_rule(fitted.rule, there.probabilities)
        if not fitted.guarantees:
            return Decided(outcome.decisions.decided)
        by_name = {guarantee.class_name: guarantee for guarantee in fitted.guarantees}
        chosen = [by_name[target.class_name] for target in settings.targets or ()]
        return Decided(
            outcome.decisions.decided,
            tuple(guarantee.sensitivity for guarantee in chosen),
            tuple(guarantee.granted for guarantee in chosen),
            outcome.alarms,
        )

    return policy


def exact_alone(targets: Targets) -> Policy:
    """The plain way: an exact binomial bound on each class by itself, image by image, overrides forgotten."""

    def policy(here: Pool, there: Pool) -> Decided:
        calibration = fit(here.labels, here.probabilities, "temperature")
        values, thresholds = calibration.apply(here.probabilities), {}
        for target in targets:
            scores = np.sort(
                values[
                    here.labels == ISIC2018.index[target.class_name], ISIC2018.index[target.class_name]
                ].astype(np.float64)
            )
            allowed = bounds.allowed_misses(len(scores), target.sensitivity, 0.95)
            thresholds[target.class_name] = float(np.nextafter(scores[allowed], 0.0)) if allowed >= 0 else 0.0
        return Decided(decide(calibration.apply(there.probabilities), thresholds, ISIC2018).decided)

    return policy


def policies(targets: Targets = PUBLISHED_TARGETS) -> dict[str, Policy]:
    """All policies of the study."""
    without_floor = tuple(Target(target.class_name, target.sensitivity) for target in targets)
    return {
        "argmax": by_settings(FitSettings(policy="none", targets=targets)),
        "published": by_settings(FitSettings(policy="published", targets=targets)),
        "exact bound, each class alone": exact_alone(targets),
        "guaranteed": by_settings(FitSettings(targets=targets)),
        "guaranteed, no floor": by_settings(FitSettings(targets=without_floor)),
    }


def cut(lesions: Lesions, of_lesion: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Bool (n_lesions,): one half of the lesions of every class; an odd one goes to either side."""
    first = np.zeros(lesions.n, dtype=bool)
    for label in range(ISIC2018.n_classes):
        mine = generator.permutation(np.flatnonzero(of_lesion == label))
        first[mine[: (len(mine) + generator.integers(2)) // 2]] = True
    return first


def one_cut(pool: Pool, lesions: Lesions, seed: int, targets: Targets = PUBLISHED_TARGETS) -> np.ndarray:
    """One cut, all policies: float (n_policies, 1 + 5 a target)."""
    first = cut(lesions, pool.labels[lesions.first], np.random.default_rng(seed))
    here, there = pool.rows(lesions.take(first)), pool.rows(lesions.take(~first))
    codes = lesions.codes[lesions.take(~first)]
    rows = []
    for policy in policies(targets).values():
        found = policy(here, there)
        row = [metrics.balanced_accuracy(there.labels, found.decided)]
        for position, target in enumerate(targets):
            row += judge(found, position, target, there.labels, codes)
        rows.append(row)
    return np.array(rows, dtype=float)


def judge(
    found: Decided, position: int, target: Target, labels: np.ndarray, codes: np.ndarray
) -> list[float]:
    """Sensitivity by lesion and by image, specificity by lesion, guaranteed sensitivity (NaN: none),
    granted.
    """
    mine, said = labels == ISIC2018.index[target.class_name], found.called(target)
    by_lesion = (votes(said[mine].astype(float), codes[mine]) > 0.5).mean()
    cleared = (votes((~said)[~mine].astype(float), codes[~mine]) > 0.5).mean()
    guaranteed = target.sensitivity if found.guaranteed is None else found.guaranteed[position]
    granted = found.granted is not None and found.granted[position]
    return [
        by_lesion,
        said[mine].mean(),
        cleared,
        np.nan if guaranteed is None else guaranteed,
        float(granted),
    ]


def table(results: np.ndarray, names: list[str], targets: Targets = PUBLISHED_TARGETS) -> list[str]:
    """The study as lines of Markdown; `results` (n_cuts, n_policies, columns)."""
    lines = [
        "| policy | BACC | class | sens. | spec. | target met | by image | target guaranteed | mean "
        "guarantee "
        "| guarantee kept | by image | kept where target guaranteed |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for number, name in enumerate(names):
        bacc = f"{results[:, number, 0].mean():.3f}"
        for position, target in enumerate(targets):
            at = 1 + 5 * position
            by_lesion, by_image, cleared, guaranteed, granted = results[:, number, at : at + 5].T
            guarantees = granted.any() or not np.allclose(guaranteed, target.sensitivity)
            made = ~np.isnan(guaranteed)
            kept, kept_image = (values[made] >= guaranteed[made] - 1e-9 for values in (by_lesion, by_image))
            full = granted[made] > 0
            lines.append(
                f"| {name} | {bacc} | {target.class_name} | {by_lesion.mean():.3f} | {cleared.mean():.3f} "
                f"| {(by_lesion >= target.sensitivity - 1e-9).mean():.3f} "
                f"| {(by_image >= target.sensitivity - 1e-9).mean():.3f} "
                + (
                    f"| {granted.mean():.3f} | {guaranteed[made].mean():.3f} | {kept.mean():.3f} "
                    f"| {kept_image.mean():.3f} | {f'{kept[full].mean():.3f}' if full.any() else '-'} |"
                    if guarantees
                    else "| - | - | - | - | - |"
                )
            )
            name, bacc = "", ""
    return lines


def together(results: np.ndarray, names: list[str]) -> list[str]:
    """How often all guarantees of one cut hold."""
    lines = []
    for number, name in enumerate(names):
        good = np.ones(len(results), dtype=bool)
        for position in range(results.shape[2] // 5):
            by_lesion, _, _, guaranteed, _ = results[:, number, 1 + 5 * position : 6 + 5 * position].T
            good &= np.isnan(guaranteed) | (by_lesion >= guaranteed - 1e-9)
        what = "guarantees" if name.startswith("guaranteed") else "targets"
        lines.append(f"- {name}: all {what} held together in {good.mean():.3f} of the cuts")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("predictions", nargs="+", type=Path, help="stored predictions, pooled")
    parser.add_argument("--target", action="append", help="CLASS:sensitivity=..,specificity=..; repeatable")
    parser.add_argument("--cuts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=-1, help="processes; -1: one a core")
    arguments = parser.parse_args()
    found = [Predictions.load(path) for path in arguments.predictions]
    pool = Pool(
        np.concatenate([p.labels for p in found]),
        np.concatenate([p.probabilities for p in found]),
        np.concatenate([p.lesion_ids for p in found]),
    )
    targets = load_policy(None, targets=arguments.target or ()).targets or PUBLISHED_TARGETS
    lesions = group(pool.lesion_ids, pool.labels)
    counts = np.bincount(pool.labels[lesions.first], minlength=ISIC2018.n_classes)
    support = ", ".join(
        f"{target.class_name} {counts[ISIC2018.index[target.class_name]]}" for target in targets
    )
    print(
        f"{len(pool.labels):,} images of {lesions.n:,} lesions ({support} lesions), argmax BACC "
        f"{metrics.balanced_accuracy(pool.labels, pool.probabilities.argmax(axis=1)):.3f}; "
        f"{arguments.cuts:,} cuts\n"
    )
    names, started = list(policies(targets)), time.monotonic()
    results = np.stack(
        Parallel(n_jobs=arguments.jobs, batch_size=10)(
            delayed(one_cut)(pool, lesions, arguments.seed + number, targets)
            for number in range(arguments.cuts)
        )
    )
    print("\n".join([*table(results, names, targets), "", *together(results, names)]))
    print(f"\n{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
