"""The ways to find thresholds, and to decide, by name."""

from __future__ import annotations

from typing import Literal

Policy = Literal["guaranteed", "published", "cost", "none"]
POLICIES: tuple[Policy, ...] = ("guaranteed", "published", "cost", "none")
CALIBRATED, ARGMAX = "calibrated", "argmax"
DECISIONS = (CALIBRATED, ARGMAX)
