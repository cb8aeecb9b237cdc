"""Class thresholds: what they decide, and the published way to find them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from skinlesion_cli.decisions.statistics.metrics import checked
from skinlesion_cli.errors import UsageError
from skinlesion_cli.taxonomy import CLASS_INDEX, CLASS_NAMES

NO_THRESHOLD = -1
DEFAULT_PRIORITY: tuple[str, ...] = ("MEL", "AKIEC")
PUBLISHED_GRID = np.linspace(0.01, 0.99, 199)
PUBLISHED_FALLBACK_SPECIFICITY = 0.50
PUBLISHED_FALLBACK_THRESHOLD = 0.5


@dataclass(frozen=True)
class Target:
    """What is wanted of one class, one against the rest; both in [0, 1]. None: no floor."""

    class_name: str
    sensitivity: float
    specificity: float | None = None

    def __post_init__(self) -> None:
        if self.class_name not in CLASS_INDEX:
            raise UsageError(
                f"no class named {self.class_name!r}", "Known classes: " + ", ".join(CLASS_NAMES)
            )
        for name, value in (("sensitivity", self.sensitivity), ("specificity", self.specificity)):
            if value is not None and not 0.0 < value < 1.0:
                raise UsageError(
                    f"{self.class_name}: {name} {value} is no target",
                    "Give a share between 0 and 1, such as 0.85; 1 can never be promised.",
                )

    @property
    def class_index(self) -> int:
        return CLASS_INDEX[self.class_name]


DEFAULT_TARGETS: tuple[Target, ...] = (Target("MEL", 0.85, 0.85), Target("AKIEC", 0.75, 0.70))


@dataclass(frozen=True)
class Decisions:
    """One row an image, class indexes as int64 of shape (n_images,).

    `fired` is the class whose threshold decided, -1 where the argmax stands for itself.
    """

    argmax: np.ndarray
    decided: np.ndarray
    fired: np.ndarray


def priority_order(thresholds: Mapping[str, float], priority: Sequence[str]) -> list[str]:
    """Classes with a threshold, the winner first; those not in `priority` come last, in class order."""
    unknown = [name for name in (*thresholds, *priority) if name not in CLASS_INDEX]
    if unknown:
        raise UsageError(
            f"no class named {', '.join(map(repr, unknown))}", "Known classes: " + ", ".join(CLASS_NAMES)
        )
    named = [name for name in dict.fromkeys(priority) if name in thresholds]
    return named + [name for name in CLASS_NAMES if name in thresholds and name not in named]


def decide(
    probabilities: np.ndarray,
    thresholds: Mapping[str, float],
    priority: Sequence[str] = DEFAULT_PRIORITY,
) -> Decisions:
    """The argmax, overridden by the first class of `priority` whose probability exceeds its threshold.

    Parameters
    ----------
    probabilities : shape (n_images, 7).
    thresholds : class name -> θ; it fires where p > θ, compared in float64.
    priority : who wins where several fire.

    A tie for the argmax goes to the first class in `CLASS_NAMES`.
    """
    values = checked(probabilities)
    argmax = values.argmax(axis=1).astype(np.int64)
    decided, fired = argmax.copy(), np.full(len(values), NO_THRESHOLD, dtype=np.int64)
    for name in reversed(priority_order(thresholds, priority)):
        index = CLASS_INDEX[name]
        over = values[:, index] > thresholds[name]
        decided[over] = index
        fired[over] = index
    return Decisions(argmax, decided, fired)


@dataclass(frozen=True)
class PublishedSearch:
    """`rule` tells by class which search found the threshold: `target`, `fallback_floor`, `fallback_0.5`."""

    thresholds: dict[str, float]
    rule: dict[str, str]


def published_thresholds(
    labels: np.ndarray, probabilities: np.ndarray, targets: Sequence[Target] = DEFAULT_TARGETS
) -> PublishedSearch:
    """The published search, each class alone against the rest (daorre1202/skin-lesion-classifier-CNN, 2026).

    Over `linspace(0.01, 0.99, 199)`, positive where p >= θ: the largest θ with specificity >= floor and
    sensitivity >= target; if none, the same with a floor of 0.50; if none again, 0.5. It is tuned to one
    sample and promises nothing about new images. Without positives or negatives no θ qualifies.

    Parameters
    ----------
    labels : int64 (n_images,). probabilities : (n_images, 7), compared in float64.
    """
    values = checked(probabilities)
    thresholds, rule = {}, {}
    for target in targets:
        theta, found_by = _published_search(
            np.asarray(labels) == target.class_index, values[:, target.class_index], target
        )
        thresholds[target.class_name], rule[target.class_name] = theta, found_by
    return PublishedSearch(thresholds, rule)


def _published_search(positive: np.ndarray, scores: np.ndarray, target: Target) -> tuple[float, str]:
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if n_positive and n_negative:
        called = scores[:, None] >= PUBLISHED_GRID[None, :]
        sensitivity = called[positive].sum(axis=0) / n_positive
        specificity = (~called[~positive]).sum(axis=0) / n_negative
        floors = (target.specificity or 0.0, PUBLISHED_FALLBACK_SPECIFICITY)
        for floor, name in zip(floors, ("target", "fallback_floor"), strict=True):
            fits = (specificity >= floor) & (sensitivity >= target.sensitivity)
            if fits.any():
                return float(PUBLISHED_GRID[np.flatnonzero(fits)[-1]]), name
    return PUBLISHED_FALLBACK_THRESHOLD, "fallback_0.5"
