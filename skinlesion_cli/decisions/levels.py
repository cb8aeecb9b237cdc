"""The levels of triage, the most urgent first."""

from __future__ import annotations

from typing import Final

REFER: Final = "refer"
REVIEW: Final = "review"
ROUTINE: Final = "routine"
LEVELS: Final = (REFER, REVIEW, ROUTINE)
