"""No thresholds and no alarms: the class with the highest probability."""

from __future__ import annotations

import numpy as np

from skinlesion_cli.decisions.policies.base import PolicyResult
from skinlesion_cli.decisions.settings import FitSettings
from skinlesion_cli.taxonomy import ClassList


def find(
    _labels: np.ndarray,
    _probabilities: np.ndarray,
    _lesion_ids: np.ndarray,
    _settings: FitSettings,
    _classes: ClassList,
) -> PolicyResult:
    """The policy `none`."""
    return PolicyResult()
