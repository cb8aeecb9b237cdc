"""What a threshold policy is, and what it hands back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from skinlesion_cli.decisions.calibration import Method
from skinlesion_cli.decisions.settings import FitSettings, Target
from skinlesion_cli.taxonomy import ClassList


@dataclass(frozen=True)
class Guarantee:
    """What holds for one alarm on new images.

    `class_name` : the class, or `malignant`. `granted`: the target is guaranteed. If not, `sensitivity` and
    `specificity` are what is guaranteed instead at the threshold in use (None: nothing can be), `reason` says
    why, and `more_lesions` how many further lesions of the class would be enough for the target (None: no
    number would, the network itself falls short).
    `sensitivity` counts lesions, each caught where the alarm fires on more than half of its photographs, in
    the population that they come from; `next_sensitivity` is the same among the next `next_lesions` lesions;
    `photograph_sensitivity` counts photographs, each lesion's together counting once, in the population.
    `confidence` is this alarm's own; all guarantees together hold with that of the settings.
    """

    class_name: str
    threshold: float
    granted: bool
    sensitivity: float | None
    next_sensitivity: float | None
    next_lesions: int
    photograph_sensitivity: float | None
    specificity: float | None
    target_sensitivity: float
    target_specificity: float | None
    confidence: float
    lesions: int
    missed: int
    more_lesions: int | None
    reason: str


@dataclass(frozen=True)
class PolicyResult:
    """What a policy found.

    `thresholds` by class override the decided class; `alarms` by class, or `malignant`, do not. `guarantees`
    and `search` as in `fit.FittedRule`.
    """

    thresholds: dict[str, float] = field(default_factory=dict)
    alarms: dict[str, float] = field(default_factory=dict)
    guarantees: tuple[Guarantee, ...] = ()
    search: Mapping[str, str] = field(default_factory=dict)


Find = Callable[[np.ndarray, np.ndarray, np.ndarray, FitSettings, ClassList], PolicyResult]


def _accept(_settings: FitSettings, _classes: ClassList) -> None:
    """Any settings and classes will do."""


def _none(_classes: ClassList) -> tuple[Target, ...]:
    """It follows no target."""
    return ()


@dataclass(frozen=True)
class Policy:
    """How thresholds are found.

    `find` gets labels, int64 (n_images,); calibrated probabilities (n_images, n_classes); lesion ids
    (n_images,); the settings; and the classes. `check` raises UsageError for settings or classes that it
    cannot work with. `default_targets`: what it aims at unless `FitSettings.targets` says otherwise.
    `follows_targets`: it aims at targets at all. `probability_method`: the calibration of
    the probabilities that it searches on, unless another is asked for. `overrides`: its thresholds decide the
    class, and without one that fires the argmax does; otherwise the class is that of the best balanced
    accuracy.
    """

    find: Find
    check: Callable[[FitSettings, ClassList], None] = _accept
    follows_targets: bool = False
    default_targets: Callable[[ClassList], tuple[Target, ...]] = _none
    probability_method: Method = "vector"
    overrides: bool = True

    def method(self, settings: FitSettings) -> Method:
        """The probability calibration in use: the one asked for, or the policy's own."""
        return settings.probability_method or self.probability_method
