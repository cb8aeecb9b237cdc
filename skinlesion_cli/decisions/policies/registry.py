"""Every threshold policy by name. To add one: a function that finds thresholds, and a line in `POLICIES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from skinlesion_cli.decisions.calibration import Method
from skinlesion_cli.decisions.policies.costs import cost_thresholds
from skinlesion_cli.decisions.thresholds import published_thresholds

if TYPE_CHECKING:
    from skinlesion_cli.decisions.fit import FitSettings
    from skinlesion_cli.decisions.policies.guaranteed import Promise


@dataclass(frozen=True)
class Found:
    """What a policy found; `promises` and `search` as in `fit.FittedRule`."""

    thresholds: dict[str, float]
    promises: tuple[Promise, ...] = ()
    search: Mapping[str, str] = field(default_factory=dict)


Find = Callable[[np.ndarray, np.ndarray, np.ndarray, "FitSettings"], Found]


@dataclass(frozen=True)
class Policy:
    """How thresholds are found.

    `find` gets labels, int64 (n_images,); calibrated probabilities (n_images, 7); lesion ids (n_images,); and
    the settings. `has_targets`: it follows `FitSettings.targets`. `probability_method`: what it searches on
    unless another is asked for.
    """

    find: Find
    has_targets: bool = False
    probability_method: Method = "temperature"


def _guaranteed(
    labels: np.ndarray, values: np.ndarray, lesion_ids: np.ndarray, settings: FitSettings
) -> Found:
    # It loads scipy, and completing the name of a policy must not.
    from skinlesion_cli.decisions.policies.guaranteed import guaranteed_thresholds

    found = guaranteed_thresholds(
        labels, values, lesion_ids, settings.targets, settings.priority, settings.guarantee
    )
    return Found(found.thresholds, promises=found.promises)


def _published(labels: np.ndarray, values: np.ndarray, _ids: np.ndarray, settings: FitSettings) -> Found:
    found = published_thresholds(labels, values, settings.targets)
    return Found(found.thresholds, search=found.rule)


def _cost(labels: np.ndarray, values: np.ndarray, lesion_ids: np.ndarray, settings: FitSettings) -> Found:
    assert settings.costs is not None
    return Found(cost_thresholds(labels, values, lesion_ids, settings.costs, priority=settings.priority))


POLICIES: dict[str, Policy] = {
    "guaranteed": Policy(_guaranteed, has_targets=True),
    # The published search runs on plain probabilities.
    "published": Policy(_published, has_targets=True, probability_method="none"),
    "cost": Policy(_cost),
    "none": Policy(lambda *_: Found({})),
}

CALIBRATED, ARGMAX = "calibrated", "argmax"
DECISIONS = (CALIBRATED, ARGMAX)
