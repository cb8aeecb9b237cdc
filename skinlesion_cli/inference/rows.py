"""What is said of an image, as a row of the result table."""

from __future__ import annotations

from typing import Any

from skinlesion_cli.artifacts.prediction_columns import empty_row
from skinlesion_cli.decisions.triage import Outcome
from skinlesion_cli.errors import ImageError
from skinlesion_cli.taxonomy import CLASS_NAMES


def predicted(index: int, outcome: Outcome, passes: int) -> dict[str, Any]:
    """The row of image `index` of an outcome."""
    decisions = outcome.decisions
    fired = int(decisions.fired[index])
    sets = outcome.conformal_sets
    plausible = (
        "" if sets is None else "|".join(n for n, held in zip(CLASS_NAMES, sets[index], strict=True) if held)
    )
    return empty_row() | {
        "status": "ok",
        **{f"p_{name}": p for name, p in zip(CLASS_NAMES, outcome.probabilities[index], strict=True)},
        "argmax": CLASS_NAMES[decisions.argmax[index]],
        "decision": CLASS_NAMES[decisions.decided[index]],
        "threshold_fired": CLASS_NAMES[fired] if fired >= 0 else "",
        "malignant_probability": outcome.malignant_probability[index],
        "conformal_set": plausible,
        "triage": str(outcome.triage[index]),
        "passes": passes,
    }


def failed(error: ImageError) -> dict[str, Any]:
    """The row of an image that could not be read; what was not measured stays empty."""
    return empty_row() | {"status": "error", "error": " ".join(f"{error.reason}: {error.message}".split())}
