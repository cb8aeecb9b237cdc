"""What a threshold policy is, and what it hands back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from skinlesion_cli.decisions.calibration import Method
from skinlesion_cli.decisions.settings import FitSettings


@dataclass(frozen=True)
class Guarantee:
    """What holds for one class on new images.

    `granted`: the target is guaranteed. If not, `sensitivity` and `specificity` are what is guaranteed
    instead at the threshold in use (None: nothing can be), `reason` says why, and `more_lesions` how many
    further lesions of the class would be enough for the target (None: no number would, the network itself
    falls short).
    `confidence` is this guarantee's own; all together hold with that of the settings.
    """

    class_name: str
    threshold: float
    granted: bool
    sensitivity: float | None
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
    """Thresholds by class; `guarantees` and `search` as in `fit.FittedRule`."""

    thresholds: dict[str, float]
    guarantees: tuple[Guarantee, ...] = ()
    search: Mapping[str, str] = field(default_factory=dict)


Find = Callable[[np.ndarray, np.ndarray, np.ndarray, FitSettings], PolicyResult]


def _accept(_settings: FitSettings) -> None:
    """Any settings will do."""


@dataclass(frozen=True)
class Policy:
    """How thresholds are found.

    `find` gets labels, int64 (n_images,); calibrated probabilities (n_images, 7); lesion ids (n_images,); and
    the settings. `check` raises UsageError for settings that it cannot work with. `has_targets`: it follows
    `FitSettings.targets`. `probability_method`: the calibration of the probabilities that it searches on,
    unless another is asked for.
    """

    find: Find
    check: Callable[[FitSettings], None] = _accept
    has_targets: bool = False
    probability_method: Method = "temperature"
